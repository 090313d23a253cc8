//go:build linux

package main

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"pgwicket/test/gate"
	"pgwicket/test/wire"
)

// fromLoopback connects from 127.0.0.2, 127.0.0.3 and so on: many clients have
// many addresses, and more ports than one address has.
func fromLoopback(ctx context.Context, i int, address string) (net.Conn, error) {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(2+i%20))}, KeepAlive: -1}
	return d.DialContext(ctx, "tcp", address)
}

// Connections that send nothing cost memory until limits.startup_timeout ends
// them, a goroutine and a socket each (the slow loris of pgdog, gate#936 and
// go-proxyproto#65).
func silentClients(ctx context.Context, t *trial) (string, error) {
	n := pick(t, 1000, 10_000)
	if have, err := raiseDescriptors(); err != nil || have < uint64(n+500) {
		return "", errors.Join(fmt.Errorf("%w: it needs %d descriptors (\"ulimit -n\"), and may have %d", errSkipped, n+500, have), err)
	}
	timeout := pick(t, 20*time.Second, 40*time.Second)
	s, err := t.open(ctx, setting{plain: true, keys: map[string]string{
		"limits.startup_timeout": timeout.String(), "limits.max_connections_per_source": strconv.Itoa(n), "limits.max_connections": strconv.Itoa(n + 100),
		"limits.max_startups": strconv.Itoa(n + 100),
	}})
	if err != nil {
		return "", err
	}
	before, err := s.Resident()
	if err != nil {
		return "", err
	}
	conns := make([]net.Conn, 0, n)
	defer func() {
		for _, c := range conns {
			_ = c.Close()
		}
	}()
	began := time.Now()
	for i := range n {
		c, err := fromLoopback(ctx, i, s.Address)
		if err != nil {
			return "", err
		}
		conns = append(conns, c)
	}
	err = gate.Eventually(ctx, "all are in their startup", timeout-time.Since(began), func() error {
		m, err := s.Metrics()
		if got := m["pgwicket_connections_starting"]; err == nil && got < float64(n) {
			err = fmt.Errorf("%v of %d are", got, n)
		}
		return err
	})
	if err != nil {
		return "", err
	}
	during, err := s.Resident()
	if err != nil {
		return "", err
	}
	if err := errors.Join(s.expectServed(ctx), s.observers.awaitAnswers(ctx, 5*observerCount)); err != nil {
		return "", err
	}
	for i, c := range conns {
		_ = c.SetReadDeadline(began.Add(timeout + gate.Timeout))
		if _, err := c.Read(make([]byte, 1)); err != io.EOF { //nolint:errorlint // nothing else comes from a socket
			return "", fmt.Errorf("connection %d was not closed after startup_timeout: %w", i, err)
		}
	}
	const most = 15 << 10
	each := (during - before) / int64(n)
	if each > most {
		err = fmt.Errorf("a silent connection costs %d bytes, %d are allowed", each, most)
	}
	return fmt.Sprintf("%d connections from 20 addresses: %.1f KiB of resident memory each, new clients and sessions served, all ended by startup_timeout", n, float64(each)/1024), err
}

// flood is clients that ask for a handshake, wait for the gate's part of it and
// close. They compute nothing, so the cost is the gate's.
type flood struct {
	stop    context.CancelFunc
	wg      sync.WaitGroup
	offered int64        // handshakes that were due, once the flood has ended
	served  atomic.Int64 // answered by the gate's flight
}

// flood offers so many a second.
func (g *target) flood(ctx context.Context, hello string, rate int) *flood {
	ctx, stop := context.WithCancel(ctx)
	f := &flood{stop: stop}
	due := make(chan int, rate) // who is late comes later
	f.wg.Go(func() {
		defer close(due)
		began, n := time.Now(), 0
		for tick := time.NewTicker(2 * time.Millisecond); ; {
			select {
			case <-ctx.Done():
				tick.Stop()
				f.offered = int64(n)
				return
			case <-tick.C:
			}
			for ; n < int(time.Since(began).Seconds()*float64(rate)); n++ {
				select {
				case due <- n:
				default: // more than a second behind: not offered
				}
			}
		}
	})
	for range 64 {
		f.wg.Go(func() {
			buf := make([]byte, 8<<10)
			for i := range due {
				if ctx.Err() == nil {
					f.connectOnce(ctx, g.Address, i, hello, buf)
				}
			}
		})
	}
	return f
}

func (f *flood) connectOnce(ctx context.Context, address string, i int, hello string, buf []byte) {
	c, err := fromLoopback(ctx, i, address)
	if err != nil {
		return
	}
	_ = c.SetDeadline(time.Now().Add(gate.Timeout))
	// A reset leaves no port in TIME_WAIT, of which there would soon be none.
	_ = c.(*net.TCPConn).SetLinger(0)
	defer c.Close()
	r := wire.New(c)
	if err := r.RequestTLS(); err != nil {
		return
	}
	if _, err := io.WriteString(c, hello); err != nil {
		return
	}
	if _, err := io.ReadAtLeast(c, buf, 600); err == nil { // the flight with its signature is longer; it is one write
		f.served.Add(1)
	}
}

// end ends it, and waits.
func (f *flood) end() {
	f.stop()
	f.wg.Wait()
}

// floodKind says which gate is flooded in a window.
type floodKind int

const (
	noFlood        floodKind = iota // no flood
	floodHere                       // a flood of the gate that serves pgbench
	floodElsewhere                  // a flood of another gate, to see what it costs the machine
)

// window is a time in which there was a flood, or none.
type window struct {
	floodKind  floodKind
	begin, end time.Time
	gate, own  time.Duration // processor time of the gate, and of us who flood it
	latencies  []time.Duration
}

// measure opens a window for a while.
func (s *scene) measure(kind floodKind, d time.Duration) (w window, err error) {
	time.Sleep(500 * time.Millisecond) // until the flood is steady
	gate, err := s.CPU()
	if err != nil {
		return w, err
	}
	own := ownTime()
	w = window{floodKind: kind, begin: time.Now()}
	time.Sleep(d)
	w.end = time.Now()
	w.own = ownTime() - own
	w.gate, err = s.CPU()
	w.gate -= gate
	return w, err
}

// ownTime is the processor time of this process.
func ownTime() time.Duration {
	var r syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &r)
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// A flood of handshakes beside live sessions that work at full speed.
func handshakeFlood(ctx context.Context, t *trial) (string, error) {
	config := t.tlsConfig(t.client)
	config.CurvePreferences = []tls.CurveID{tls.X25519} // OpenSSL's first before 3.5
	hello, err := recordHello(config)
	if err != nil {
		return "", err
	}
	// Fewer, with the race detector.
	s, err := t.open(ctx, setting{})
	if err != nil {
		return "", err
	}
	f := s.flood(ctx, hello, 200)
	time.Sleep(pick(t, 3*time.Second, 15*time.Second))
	f.end()
	if err := errors.Join(s.expectServed(ctx), t.finish(ctx, s)); err != nil {
		return "", fmt.Errorf("with the race detector: %w", err)
	}

	// All of them, for the ratio, without a log line for each.
	if s, err = t.open(ctx, setting{plain: true, keys: map[string]string{"log.level": "warn"}}); err != nil {
		return "", err
	}
	const rate = 2000
	other, err := t.start(ctx, s.setting)
	if err != nil {
		return "", err
	}
	length, rounds := pick(t, 2500*time.Millisecond, 6*time.Second), pick(t, 2, 5)
	windows, flooded, err := s.alternate(ctx, other, hello, rate, length, rounds)
	if err := errors.Join(err, other.Stop()); err != nil {
		return "", err
	}
	without, with, control := summary(windows, noFlood), summary(windows, floodHere), summary(windows, floodElsewhere)
	latency, throughput := float64(with.median)/float64(without.median), with.rate/without.rate
	mostLatency, leastThroughput := pick(t, 10.0, 2.0), pick(t, 0.05, 0.5) // CI has neighbours
	done := fmt.Sprintf("%d handshakes a second offered, %.0f %% of them served, for %v; pgbench (select-only, prepared, 4 clients) in alternating windows: "+
		"median latency %.2f× of that without (p99: %.1f×), throughput %.2f×; with the same flood of another gate on the same machine %.2f× (p99: %.1f×) and %.2f×; "+
		"the gate used %.2f cores (without: %.2f), the flood and the observers %.2f (%.2f)",
		rate, 100*float64(flooded.served.Load())/float64(flooded.offered), length*time.Duration(rounds),
		latency, float64(with.p99)/float64(without.p99), throughput,
		float64(control.median)/float64(without.median), float64(control.p99)/float64(without.p99), control.rate/without.rate,
		with.gate, without.gate, with.own, without.own)
	if latency > mostLatency || throughput < leastThroughput {
		err = fmt.Errorf("allowed are %.1f× the latency and %.2f× the throughput", mostLatency, leastThroughput)
	}
	return done, err
}

// alternate runs pgbench through windows of each kind, in turn, and returns the sum
// of the floods of this gate.
func (s *scene) alternate(ctx context.Context, other *target, hello string, rate int, length time.Duration, rounds int) (all []window, total *flood, err error) {
	prefix := filepath.Join(s.Dir, "pgbench")
	bench, err := s.lab.libpq(ctx, s.target, "pgbench", "-n", "-S", "-M", "prepared", "-c", "4", "-j", "2", "-T", "3600", "-l", "--log-prefix="+prefix)
	if err != nil {
		return nil, nil, err
	}
	if err := bench.Start(); err != nil {
		return nil, nil, err
	}
	finish := func() {
		_ = syscall.Kill(-bench.Process.Pid, syscall.SIGTERM)
		_ = bench.Wait()
	}
	if err := s.holds(ctx, observerCount+4); err != nil {
		finish()
		return nil, nil, err
	}
	total = new(flood)
	for range rounds {
		for _, kind := range []floodKind{noFlood, floodHere, noFlood, floodElsewhere} {
			w, f, err := s.measureWindow(ctx, other, hello, rate, kind, length)
			if err != nil {
				finish()
				return nil, nil, err
			}
			if kind == floodHere {
				total.offered += f.offered
				total.served.Add(f.served.Load())
			}
			all = append(all, w)
		}
	}
	finish()
	logs, err := filepath.Glob(prefix + ".*")
	if err != nil {
		return nil, nil, err
	}
	for _, name := range logs {
		if err := sortInto(all, name); err != nil {
			return nil, nil, err
		}
	}
	return all, total, ctx.Err()
}

// measureWindow opens a window with that flood.
func (s *scene) measureWindow(ctx context.Context, other *target, hello string, rate int, kind floodKind, length time.Duration) (w window, f *flood, err error) {
	switch kind {
	case noFlood:
		w, err = s.measure(kind, length)
		return w, nil, err
	case floodHere:
		f = s.flood(ctx, hello, rate)
	case floodElsewhere:
		f = other.flood(ctx, hello, rate)
	}
	w, err = s.measure(kind, length)
	f.end()
	return w, f, err
}

// sortInto reads what pgbench -l has written and gives each transaction to the
// window in which it ended.
func sortInto(all []window, name string) error {
	file, err := os.Open(name)
	if err != nil {
		return err
	}
	defer file.Close()
	for sc := bufio.NewScanner(file); sc.Scan(); {
		took, at, ok := transaction(sc.Text())
		if !ok {
			continue
		}
		for i := range all {
			if w := &all[i]; at.After(w.begin) && at.Before(w.end) {
				w.latencies = append(w.latencies, took)
			}
		}
	}
	return nil
}

// transaction reads "client transaction µs script epoch µs".
func transaction(line string) (took time.Duration, at time.Time, ok bool) {
	var client, number, us, script, epoch, micro int64
	if strings.Count(line, " ") != 5 {
		return 0, at, false // cut off by our signal
	}
	if _, err := fmt.Sscan(line, &client, &number, &us, &script, &epoch, &micro); err != nil {
		return 0, at, false
	}
	return time.Duration(us) * time.Microsecond, time.Unix(epoch, micro*1000), true
}

// pace is what windows of one kind have in common.
type pace struct {
	median    time.Duration
	p99       time.Duration
	rate      float64 // transactions a second
	gate, own float64 // processors used
}

func summary(all []window, kind floodKind) (p pace) {
	var took []time.Duration
	var length, gate, own time.Duration
	for _, w := range all {
		if w.floodKind == kind {
			took = append(took, w.latencies...)
			length += w.end.Sub(w.begin)
			gate += w.gate
			own += w.own
		}
	}
	if len(took) == 0 || length == 0 {
		return p
	}
	slices.SortFunc(took, cmp.Compare)
	return pace{took[len(took)/2], took[len(took)*99/100], float64(len(took)) / length.Seconds(), gate.Seconds() / length.Seconds(), own.Seconds() / length.Seconds()}
}
