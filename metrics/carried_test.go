package metrics_test

import (
	"crypto/tls"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"

	"pgwicket/metrics"
)

// No counter of the next process is below what the one before has shown, series that it has not
// counted yet included, and nothing counts twice.
func TestCountersOfTheProcessBefore(t *testing.T) {
	t.Parallel()
	generations := []*metrics.Set{metrics.New("one"), metrics.New("two"), metrics.New("three")}
	for i, s := range generations {
		if i > 0 {
			for _, live := range []bool{true, false} { // the later one replaces the earlier
				counters, err := generations[i-1].Counters(live)
				if err != nil {
					t.Fatal(err)
				}
				if err := s.Carry(counters); err != nil {
					t.Fatal(err)
				}
			}
		}
		s.Accepted("127.0.0.1:5432")()
		s.Started()
		s.SessionOpened()
		s.Relayed(10, 20)
		s.BackendConnected("", 3*time.Millisecond)
		if i == 0 {
			s.Handshake("", tls.ConnectionState{Version: tls.VersionTLS13, CipherSuite: tls.TLS_AES_128_GCM_SHA256}, time.Millisecond)
			s.Ended("", "client_closed")
		}
	}
	last := generations[2]
	for name, want := range map[string]float64{
		"pgwicket_connections_accepted_total": 3, "pgwicket_client_received_bytes_total": 30, "pgwicket_client_sent_bytes_total": 60,
		"pgwicket_tls_handshakes_total": 1, "pgwicket_sessions_ended_total": 1, "pgwicket_sessions_open": 1,
	} {
		if got := sum(t, last, name); got != want {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
	if n := len(family(t, last, "pgwicket_tls_handshakes_total").GetMetric()); n != 1 {
		t.Errorf("%d series of handshakes", n)
	}
	h := family(t, last, "pgwicket_backend_connect_duration_seconds").GetMetric()[0].GetHistogram()
	if h.GetSampleCount() != 3 || h.GetSampleSum() < 0.0089 || h.GetSampleSum() > 0.0091 || h.GetBucket()[len(h.GetBucket())-1].GetCumulativeCount() != 3 {
		t.Errorf("histogram %v", h)
	}
	if totals := last.Totals(); totals.Accepted != 3 || totals.Open != 1 || totals.Ended["client_closed"] != 1 {
		t.Errorf("totals %+v", totals)
	}
	if err := last.Carry([]byte("{")); err == nil || sum(t, last, "pgwicket_connections_accepted_total") != 3 {
		t.Error("counters that cannot be read have replaced others: ", err)
	}
}

// While the process before still has sessions, they are open here, too.
func TestGaugesOfTheProcessBefore(t *testing.T) {
	t.Parallel()
	before, s := metrics.New("one"), metrics.New("two")
	for range 3 {
		before.Accepted("127.0.0.1:5432")()
		before.Started()
		before.SessionOpened()
	}
	before.Accepted("127.0.0.1:5432")()
	before.Started()
	counters, err := before.Counters(true)
	if err == nil {
		err = s.Carry(counters)
	}
	if err != nil {
		t.Fatal(err)
	}
	if totals := s.Totals(); totals.Open != 3 || totals.Starting != 1 {
		t.Errorf("totals %+v", totals)
	}
	s.SessionTaken()
	s.CarriedTaken(1)
	if totals := s.Totals(); totals.Open != 3 || totals.Starting != 1 {
		t.Errorf("totals %+v with a session that was taken", totals)
	}
	s.CarriedEnded()
	if totals := s.Totals(); totals.Open != 1 || totals.Starting != 0 || totals.Ended["internal_error"] != 2 || totals.Refused["internal_error"] != 1 || totals.Accepted != 4 {
		t.Errorf("totals %+v when it has ended", totals)
	}
	s.CarriedEnded() // nothing counts twice
	if totals := s.Totals(); totals.Ended["internal_error"] != 2 || totals.Refused["internal_error"] != 1 {
		t.Errorf("totals %+v", totals)
	}
}

// A session that was in its startup when the process before was last heard of may be taken.
func TestTakenFromStartup(t *testing.T) {
	t.Parallel()
	before, s := metrics.New("one"), metrics.New("two")
	before.Accepted("127.0.0.1:5432")()
	before.Started()
	counters, err := before.Counters(true)
	if err == nil {
		err = s.Carry(counters)
	}
	if err != nil {
		t.Fatal(err)
	}
	s.SessionTaken()
	s.CarriedTaken(1)
	s.CarriedEnded()
	if totals := s.Totals(); totals.Accepted != 1 || totals.Open != 1 || totals.Starting != 0 || totals.Ended["internal_error"] != 0 || totals.Refused["internal_error"] != 0 {
		t.Errorf("totals %+v", totals)
	}
}

func family(t *testing.T, s *metrics.Set, name string) *dto.MetricFamily {
	t.Helper()
	families, err := s.Gatherer().Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return f
		}
	}
	t.Fatalf("no series %s", name)
	return nil
}

func sum(t *testing.T, s *metrics.Set, name string) (total float64) {
	t.Helper()
	for _, m := range family(t, s, name).GetMetric() {
		total += m.GetCounter().GetValue() + m.GetGauge().GetValue()
	}
	return total
}
