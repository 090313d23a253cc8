//go:build !linux

// Command siege runs on Linux only.
package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "siege: it reads /proc and uses network namespaces, so it needs Linux")
	os.Exit(1) //nolint:forbidigo // this is main
}
