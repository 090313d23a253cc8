//go:build !linux

package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "interop: the servers that it installs are built for Linux")
	os.Exit(1) //nolint:forbidigo // this is main
}
