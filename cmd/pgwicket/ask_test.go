//go:build unix

package main

import (
	"testing"
)

func TestReachable(t *testing.T) {
	for address, want := range map[string]string{
		"127.0.0.1:10432": "127.0.0.1:10432", "10.0.0.5:1": "10.0.0.5:1", "0.0.0.0:10432": "127.0.0.1:10432", "[::]:10432": "[::1]:10432", "[fd00::5]:1": "[fd00::5]:1",
	} {
		if got := reachable(address); got != want {
			t.Errorf("%s: %s, want %s", address, got, want)
		}
	}
}

func TestSize(t *testing.T) {
	for bytes, want := range map[int64]string{
		0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 1536: "1.5 KiB", 1 << 20: "1.0 MiB", 5 << 40: "5.0 TiB", 1 << 60: "1024.0 PiB",
	} {
		if got := size(bytes); got != want {
			t.Errorf("%d: %s, want %s", bytes, got, want)
		}
	}
}
