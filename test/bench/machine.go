package main

import (
	"context"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"
)

// machine is where and with what it was measured.
type machine struct {
	At         string          `json:"at"`
	CPU        string          `json:"cpu"`
	Cores      int             `json:"cores"`
	Kernel     string          `json:"kernel"`
	System     string          `json:"system"`
	Load       string          `json:"load"`
	Go         string          `json:"go"`
	Command    string          `json:"command"`
	Contenders []contenderInfo `json:"contenders"`
}

// contenderInfo is a contender as the report describes it.
type contenderInfo struct {
	ID      string `json:"id"`
	Title   string `json:"title"`
	About   string `json:"about"`
	Version string `json:"version"`
}

func describe(l *lab, chosen []contender) machine {
	m := machine{
		At: time.Now().UTC().Format(time.DateOnly), CPU: field("/proc/cpuinfo", "model name"), Cores: runtime.NumCPU(),
		Kernel: word("/proc/sys/kernel/osrelease"), System: strings.Trim(assigned("/etc/os-release", "PRETTY_NAME"), `"`),
		Load: strings.Join(strings.Fields(word("/proc/loadavg"))[:min(3, len(strings.Fields(word("/proc/loadavg"))))], " "),
		Go:   runtime.Version(), Command: "bench " + strings.Join(os.Args[1:], " "),
	}
	for _, c := range chosen {
		m.Contenders = append(m.Contenders, contenderInfo{c.id, c.title, c.about, c.version(l)})
	}
	return m
}

// firstLine runs a program that tells its version, on whichever stream.
func firstLine(argv ...string) string {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	out, _ := exec.CommandContext(ctx, argv[0], argv[1:]...).CombinedOutput()
	for line := range strings.Lines(string(out)) {
		// stunnel tells about its initialisation first.
		if !strings.HasPrefix(line, "Initializing") {
			return strings.TrimSpace(line)
		}
	}
	return ""
}

func word(file string) string {
	b, _ := os.ReadFile(file)
	return strings.TrimSpace(string(b))
}

func field(file, key string) string    { return lookUp(file, key, ":") }
func assigned(file, key string) string { return lookUp(file, key, "=") }

func lookUp(file, key, separator string) string {
	for line := range strings.Lines(word(file)) {
		if k, v, ok := strings.Cut(line, separator); ok && strings.TrimSpace(k) == key {
			return strings.TrimSpace(v)
		}
	}
	return ""
}
