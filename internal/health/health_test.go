package health_test

import (
	"testing"
	"time"

	"pgwicket/internal/health"
)

func TestBook(t *testing.T) {
	t.Parallel()
	var b health.Book
	at := time.Date(2026, 11, 30, 3, 0, 0, 0, time.UTC)
	one, other, gone := health.Host{Backend: "default", Address: "b:5432"}, health.Host{Backend: "default", Address: "a:5432"}, health.Host{Address: "c:5432"}
	if b.Succeeded(one, at) {
		t.Error("a host is kept that nobody has named")
	}
	b.Keep([]health.Host{one, other, gone})
	if s := b.All()[2]; s.Known() || s.Down() {
		t.Errorf("without an attempt: %+v", s)
	}
	b.Succeeded(one, at)
	b.Failed(one, at.Add(time.Second), "connection refused")
	b.Failed(gone, at, "no route to host")
	b.Keep([]health.Host{one, other})
	all := b.All()
	if len(all) != 2 || all[0].Host != other || all[1] != (health.State{Host: one, LastSuccess: at, LastFailure: at.Add(time.Second), Reason: "connection refused"}) || !all[1].Down() {
		t.Fatalf("%+v", all)
	}
	if b.Failed(gone, at, "late") {
		t.Error("a session that has begun before the reload brings a host back")
	}
	b.Succeeded(one, at.Add(time.Minute))
	if s := b.All()[1]; s.Down() || s.Reason != "connection refused" {
		t.Errorf("after a session was served: %+v", s)
	}
}
