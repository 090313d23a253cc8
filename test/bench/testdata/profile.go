package main

import (
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"syscall"
)

// With BENCH_PROFILES, a directory, a SIGUSR1 begins a CPU profile and the next
// one ends it and writes 1.pprof, then 2.pprof, and so on.
func init() {
	dir := os.Getenv("BENCH_PROFILES")
	if dir == "" {
		return
	}
	marks := make(chan os.Signal, 2)
	signal.Notify(marks, syscall.SIGUSR1)
	go func() {
		for n := 1; ; n++ {
			if err := profile(filepath.Join(dir, fmt.Sprint(n)), marks); err != nil {
				fmt.Fprintln(os.Stderr, "profile:", err)
				return
			}
		}
	}()
}

func profile(name string, marks <-chan os.Signal) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	<-marks
	// As often as most kernels look; pprof complains in the log that it could not set its own 100.
	runtime.SetCPUProfileRate(250)
	if err := pprof.StartCPUProfile(f); err != nil {
		return err
	}
	<-marks
	pprof.StopCPUProfile()
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(name, name+".pprof")
}
