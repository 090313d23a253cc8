package main

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// profile is where the CPU of pgwicket went under one load.
type profile struct {
	Title   string             `json:"title"`
	Sampled float64            `json:"sampled"` // seconds
	Spent   map[string]float64 `json:"spent"`   // of them, by the id of a share
}

// profileLoads takes profiles and adds up what was sampled in them.
func profileLoads(ctx context.Context, l *lab, o options, r *results) error {
	loads := named(o, "select-8", "select-32", "copy-out", "connect-cert")
	files, err := l.profiles(ctx, loads, o.rounds, 3*o.burst)
	if err != nil {
		return err
	}
	for _, sc := range loads {
		text, err := traces(ctx, files[sc.ID])
		if err != nil {
			return err
		}
		p := sorted(stacks(text))
		p.Title = sc.Title
		r.Profiles = append(r.Profiles, p)
	}
	return nil
}

// stack is where samples were taken: the functions, the innermost first.
type stack struct {
	spent     time.Duration
	functions []string
}

// stacks reads what "go tool pprof -traces" prints: after a separate line for
// each stack the time and the innermost function, then those that have called it.
func stacks(text string) (all []stack) {
	for line := range strings.Lines(text) {
		f := strings.Fields(strings.TrimSuffix(strings.TrimSpace(line), " (inline)"))
		if len(f) == 0 {
			continue
		}
		if strings.HasPrefix(f[0], "---") {
			all = append(all, stack{})
			continue
		}
		if len(all) == 0 {
			continue // the head
		}
		s := &all[len(all)-1]
		if len(s.functions) == 0 {
			d, err := time.ParseDuration(f[0])
			if err != nil {
				continue // a label
			}
			s.spent, f = d, f[1:]
		}
		s.functions = append(s.functions, strings.Join(f, " "))
	}
	return slices.DeleteFunc(all, func(s stack) bool { return len(s.functions) == 0 })
}

// share is a kind of work: the stacks with one of these texts in a function, and
// not of a share before it.
type share struct {
	id, title string
	in        []string
	call      bool // the innermost function is a system call, and the text is in the name of the one that makes it
}

// allShares are in the order in which a stack is judged.
func allShares() []share {
	return []share{
		{"tracker", "the tracker of the backend's messages", []string{"pgwire.(*Tracker)"}, false},
		{"memory", "allocation, garbage collection, growing stacks", []string{
			"runtime.mallocgc", "runtime.gc", "runtime.bgsweep", "runtime.bgscavenge", "runtime.newstack", "runtime.makeslice", "runtime.growslice", "runtime.newobject",
		}, false},
		{"scheduler", "scheduler, timers and runtime netpoll, with their system calls", []string{
			"runtime.schedule", "runtime.findRunnable", "runtime.netpoll", "runtime.futex", "runtime.mcall", "runtime.mstart", "runtime.sysmon", "runtime.wakep",
			"runtime.ready", "runtime.gopark", "runtime_pollWait", "runtime.(*timer",
		}, false},
		{"read", "system calls: read", []string{"read", "recv"}, true},
		{"write", "system calls: write", []string{"write", "send"}, true},
		{"epoll", "system calls: epoll", []string{"epoll"}, true},
		{"call", "system calls: others (accept, socket, close, …)", []string{""}, true},
		{"aead", "AEAD", []string{"crypto/internal/fips140/aes", "chacha20", "xorNonceAEAD"}, false},
		{"maths", "mathematics of the handshake", []string{"crypto/internal/fips140/", "crypto/ecdh", "crypto/ecdsa", "crypto/sha"}, false},
		{"certificates", "certificates: reading and verifying", []string{"crypto/x509", "pgwicket/tlsconfig.", "pgwicket/internal/crl.", "pgwicket/acl."}, false},
		{"tls", "the rest of crypto/tls", []string{"crypto/tls."}, false},
		{"loop", "the loop itself", []string{"pgwicket/proxy.(*loop)", "pgwicket/internal/relay."}, false},
		{"gate", "the rest of pgwicket (accept, dialogue, log, metrics)", []string{"pgwicket/"}, false},
		{"other", "everything else", []string{""}, false},
	}
}

func (h share) has(s stack) bool {
	if !h.call {
		return slices.ContainsFunc(h.in, func(text string) bool {
			return slices.ContainsFunc(s.functions, func(f string) bool { return strings.Contains(f, text) })
		})
	}
	i := slices.IndexFunc(s.functions, func(f string) bool { return !strings.HasSuffix(strings.TrimSuffix(f, "6"), "Syscall") })
	if i <= 0 {
		return false
	}
	caller := strings.ToLower(s.functions[i][strings.LastIndexByte(s.functions[i], '.')+1:])
	return slices.ContainsFunc(h.in, func(text string) bool { return strings.Contains(caller, text) })
}

// sorted adds the stacks up, without what the profile itself costs.
func sorted(all []stack) profile {
	p := profile{Spent: map[string]float64{}}
	profiler := share{in: []string{"runtime/pprof."}}
	for _, s := range all {
		if profiler.has(s) {
			continue
		}
		kinds := allShares()
		kind := kinds[slices.IndexFunc(kinds, func(h share) bool { return h.has(s) })] // the last has all
		p.Spent[kind.id] += s.spent.Seconds()
		p.Sampled += s.spent.Seconds()
	}
	return p
}

// shares is the report of the profiles.
func (r *results) shares(string) string {
	var b bytes.Buffer
	r.Machine.introduce(&b)
	fmt.Fprint(&b, "Share of the CPU of pgwicket alone, from its own profile of up to 250 samples a second of CPU; "+
		"system calls are with what the kernel does in them, down to the peer's socket. –: in no sample.\n\n")
	row := func(first string, cell func(profile) string) {
		cells := []string{first}
		for _, p := range r.Profiles {
			cells = append(cells, cell(p))
		}
		tableRow(&b, cells...)
	}
	row("", func(p profile) string { return p.Title })
	row("---", func(profile) string { return "---" })
	for _, h := range allShares() {
		row(h.title, func(p profile) string { return p.percent(h.id) })
	}
	row("CPU in the samples", func(p profile) string { return span(p.Sampled) })
	return b.String()
}

func (p profile) percent(id string) string {
	if p.Spent[id] == 0 {
		return "–"
	}
	return fmt.Sprintf("%.1f %%", 100*p.Spent[id]/p.Sampled)
}
