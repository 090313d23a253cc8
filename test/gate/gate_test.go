package gate

import (
	"context"
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestMetrics(t *testing.T) {
	t.Parallel()
	m := parseMetrics(`# HELP pgwicket_connections_accepted_total Connections accepted, by listener.
# TYPE pgwicket_connections_accepted_total counter
pgwicket_connections_accepted_total{listener="127.0.0.1:5432"} 7
pgwicket_connections_accepted_total{listener="[::1]:5432"} 3
pgwicket_connections_refused_total{outcome="probe"} 4
pgwicket_connections_refused_total_of_another 100
pgwicket_sessions_ended_total{outcome="client_closed"} 2
pgwicket_cancel_requests_total{outcome="forwarded"} 1
pgwicket_connections_starting 1
pgwicket_sessions_open 1

go_goroutines 1.2e+01
`)
	if got := m.Sum("pgwicket_connections_accepted_total"); got != 10 {
		t.Errorf("accepted: %v", got)
	}
	if got := m.Sum("pgwicket_connections_refused_total"); got != 4 {
		t.Errorf("refused: %v", got)
	}
	if m["go_goroutines"] != 12 {
		t.Errorf("goroutines: %v", m["go_goroutines"])
	}
	if got := m.Unaccounted(); got != 1 { // 10 - 4 - 1 - 2 - 1 - 1
		t.Errorf("unaccounted: %v", got)
	}
}

// What must fail a run, and what must not.
func TestCheckLog(t *testing.T) {
	t.Parallel()
	good := `{"level":"INFO","msg":"session ended","outcome":"client_closed"}` + "\n"
	for text, want := range map[string]string{
		"":   "",
		good: "",
		good + `{"level":"ERROR","msg":"accept failed","error":"too many open files"}` + "\n":                "",
		good + "panic: runtime error: index out of range\n\ngoroutine 1 [running]:\n":                        "a line that is not JSON",
		good + "==================\nWARNING: DATA RACE\n":                                                    "a data race",
		good + "fatal error: concurrent map writes\n":                                                        "a line that is not JSON",
		`{"level":"ERROR","msg":"panic in a session; please report this","stack":"..."}` + "\n" + good:       "an error in the gate",
		`{"level":"ERROR","msg":"connection refused","outcome":"internal_error","reason":"x"}` + "\n" + good: "an error in the gate",
	} {
		err := CheckLog([]byte(text))
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

func TestConfig(t *testing.T) {
	t.Parallel()
	got := string(Config("127.0.0.1:5432", map[string]string{"reuse_port": "true", "limits.startup_timeout": "2s", "limits.max_connections": "0"}))
	want := "listen:\n  - address: \"127.0.0.1:5432\"\nlimits:\n  max_connections: 0\n  startup_timeout: 2s\nreuse_port: true\n"
	if got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
}

func TestProcess(t *testing.T) {
	t.Parallel()
	run := func(script string) *Process {
		t.Helper()
		p, err := Run(Command{Argv: []string{"sh", "-c", script}, Dir: t.TempDir(), Env: os.Environ()})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(p.Kill)
		return p
	}
	ends := run("echo broken; exit 3")
	<-ends.Exited()
	if err := ends.Unexpected(); err == nil || !strings.Contains(err.Error(), "broken") {
		t.Errorf("exited: %v, want an error with the log's end", err)
	}

	obeys := run("trap 'exit 0' TERM; echo ready; while :; do sleep 0.01; done")
	stubborn := run("trap '' TERM; echo ready; while :; do sleep 0.01; done")
	for _, p := range []*Process{obeys, stubborn} {
		err := Eventually(t.Context(), "the trap is set", Timeout, func() error {
			if !strings.Contains(string(p.RawLog()), "ready") {
				return errors.New("not yet")
			}
			return p.Unexpected()
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := obeys.Stop(syscall.SIGTERM, Timeout); err != nil {
		t.Error(err)
	}
	if err := stubborn.Stop(syscall.SIGTERM, 50*time.Millisecond); err == nil || !strings.Contains(err.Error(), "terminated") {
		t.Errorf("ignores SIGTERM: %v", err)
	}
	if !stubborn.HasExited() || stubborn.Unexpected() != nil {
		t.Error("Stop has not killed it")
	}
}

func TestEventually(t *testing.T) {
	t.Parallel()
	calls, cause := 0, errors.New("cause")
	holds := func() error {
		if calls++; calls < 3 {
			return cause
		}
		return nil
	}
	if err := Eventually(t.Context(), "third call", Timeout, holds); err != nil || calls != 3 {
		t.Errorf("%v after %d calls", err, calls)
	}
	if err := Eventually(t.Context(), "never", time.Nanosecond, func() error { return cause }); !errors.Is(err, cause) {
		t.Errorf("too late: %v", err)
	}
	if err := Eventually(t.Context(), "never", Timeout, func() error { return Never(cause) }); !errors.Is(err, cause) {
		t.Errorf("cannot come to hold: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Eventually(ctx, "never", Timeout, func() error { return cause }); !errors.Is(err, context.Canceled) {
		t.Errorf("context: %v", err)
	}
}
