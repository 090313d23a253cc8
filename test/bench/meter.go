package main

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// sample is what one burst of one contender gave. Times are in seconds.
type sample struct {
	Units      float64 `json:"units"` // transactions, connections, GiB, handshakes
	Seconds    float64 `json:"seconds"`
	GateCPU    float64 `json:"gate_cpu"`
	ServerCPU  float64 `json:"server_cpu"` // of all processes of PostgreSQL
	P50        float64 `json:"p50,omitempty"`
	P99        float64 `json:"p99,omitempty"`
	PeakRSS    float64 `json:"peak_rss,omitempty"`    // of the gate, bytes
	PerSession float64 `json:"per_session,omitempty"` // bytes
	Beside     float64 `json:"beside,omitempty"`      // what ran beside it, per second
	Bytes      float64 `json:"bytes,omitempty"`       // that the answers carried
	StartUp    float64 `json:"start_up,omitempty"`    // of the gate
}

func (s *sample) latencies(all []time.Duration) {
	s.P50, s.P99 = percentile(all, 50).Seconds(), percentile(all, 99).Seconds()
}

// meter measures between its start and stop.
type meter struct {
	gate, server int // process ids; 0 is none
	marks        bool
	at           time.Time
	gateCPU      time.Duration
	serverCPU    time.Duration
}

func startMeter(g *endpoint) (*meter, error) {
	m := &meter{gate: g.pid(), server: g.server, marks: g.contender.marks}
	resetPeak(m.gate)
	m.mark()
	err := m.read()
	return m, err
}

func (m *meter) read() (err error) {
	if m.gateCPU, err = familyCPU(m.gate); err != nil {
		return err
	}
	if m.serverCPU, err = familyCPU(m.server); err != nil {
		return err
	}
	m.at = time.Now()
	return nil
}

func (m *meter) mark() {
	if m.marks {
		_ = syscall.Kill(m.gate, syscall.SIGUSR1)
	}
}

// stop returns the difference to the start.
func (m *meter) stop() (sample, error) {
	m.mark()
	now := *m
	if err := now.read(); err != nil {
		return sample{}, err
	}
	return sample{
		Seconds:   now.at.Sub(m.at).Seconds(),
		GateCPU:   (now.gateCPU - m.gateCPU).Seconds(),
		ServerCPU: (now.serverCPU - m.serverCPU).Seconds(),
		PeakRSS:   peakRSS(m.gate),
	}, nil
}

// familyCPU is the processor time of a process, of its living children and of
// those it has waited for: PostgreSQL has a process for each session.
func familyCPU(pid int) (time.Duration, error) {
	if pid == 0 {
		return 0, nil
	}
	total, err := cpuOf(pid)
	if err != nil {
		return 0, err
	}
	total += waitedCPU(pid)
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	for f := range bytes.FieldsSeq(b) {
		child, _ := strconv.Atoi(string(f))
		if t, err := cpuOf(child); err == nil { // else it has just ended
			total += t
		}
	}
	return total, nil
}

// waitedCPU reads cutime and cstime, in ticks of 10 ms on every Linux.
func waitedCPU(pid int) time.Duration {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, openIdle, _ := strings.Cut(string(b), ") ") // the name may hold anything
	f := strings.Fields(openIdle)
	if len(f) < 15 {
		return 0
	}
	cutime, _ := strconv.Atoi(f[13])
	cstime, _ := strconv.Atoi(f[14])
	return time.Duration(cutime+cstime) * 10 * time.Millisecond
}

// resetPeak makes the highest resident size start anew at what it is now. It may
// fail where /proc is restricted; then the peak is that since the start.
func resetPeak(pid int) {
	if pid != 0 {
		_ = os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0)
	}
}

func peakRSS(pid int) float64 { return procKiB(pid, "status", "VmHWM:") * 1024 }

// pss is the memory of a process with a fair part of what it shares.
func pss(pid int) float64 { return procKiB(pid, "smaps_rollup", "Pss:") * 1024 }

func procKiB(pid int, file, key string) float64 {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) >= 2 && f[0] == key {
			n, _ := strconv.ParseFloat(f[1], 64)
			return n
		}
	}
	return 0
}

// percentile sorts what it is given; 0 of nothing.
func percentile(all []time.Duration, p int) time.Duration {
	if len(all) == 0 {
		return 0
	}
	slices.Sort(all)
	return all[min(len(all)*p/100, len(all)-1)]
}
