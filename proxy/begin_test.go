package proxy_test

import (
	"encoding/json"
	"slices"
	"testing"

	"pgwicket/proxy"
)

// A session is in the log while it is open, with what is known of it, and its end has the
// same id; with LogEndsOnly only the end is there.
func TestSessionBegins(t *testing.T) {
	t.Parallel()
	messages := func(g *gate) (all []string) {
		for _, line := range g.Log.parsed() {
			all = append(all, line.get("msg")+" "+line.get("session"))
		}
		return all
	}
	b := newBackend(t)
	g := newGate(t, b.SocketDir)
	conn := g.session(t, "app", withCert(testCA().Client("alice")))
	id := g.Server.Snapshot()[0].ID
	eventually(t, "the session is logged", func() bool { return slices.Contains(messages(g), "session began "+id) })
	line := g.Log.parsed()[0]
	for attr, want := range map[string]string{
		"client": conn.LocalAddr().String(), "listener": g.Addr, "user": "app", "database": "shop", "cert_subject": "CN=alice", "tls_version": "TLS 1.3",
		"backend": b.SocketDir + "/.s.PGSQL.5432", "level": "INFO", "outcome": "",
	} {
		if line.get(attr) != want {
			t.Errorf("%s is %q, want %q", attr, line.get(attr), want)
		}
	}
	for _, attr := range []string{"cert_serial", "cert_sha256", "backend_pid"} {
		if line[attr] == nil {
			t.Errorf("%s is missing: %v", attr, line)
		}
	}
	_ = conn.Close()
	if line := g.expect(t, "client_closed"); line.get("session") != id {
		t.Errorf("the end is of %s, not %s", line.get("session"), id)
	}

	quiet := newGate(t, b.SocketDir, func(p *proxy.Policy) { p.LogEndsOnly = true })
	conn = quiet.session(t, "app")
	_ = conn.Close()
	_ = quiet.outcome(t)
	if all := quiet.Log.parsed(); len(all) != 1 || all[0].get("msg") != "session ended" {
		t.Errorf("log: %v", all)
	}
}

// parsed returns every line so far.
func (l *logBook) parsed() (all []logLine) {
	for _, text := range l.all() {
		line := logLine{}
		_ = json.Unmarshal([]byte(text), &line)
		all = append(all, line)
	}
	return all
}
