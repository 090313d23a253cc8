package refusallog

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"
)

type outcome string

func (o outcome) String() string { return string(o) }

func source4(i uint32) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, i))), 32)
}

// Strangers can cause so many lines a second and no more, one of them a fifth; what
// is left out stands in a summary.
func TestRate(t *testing.T) {
	t.Parallel()
	const perSecond = 50
	r, now := NewRate[outcome](), time.Now()
	one, all := 0, 0
	for i := range 10_000 {
		at := now.Add(time.Duration(i) * time.Millisecond) // ten seconds
		if r.Allow(perSecond, "tls_failed", source4(1), at) {
			one++
		}
	}
	if want := perSecond / sourceShare * 10; one < want || one > want+refusalBurst*perSecond/sourceShare+1 {
		t.Errorf("%d lines of one source in ten seconds, want some %d", one, want)
	}
	if total, _ := r.Summary(); total != 10_000-one {
		t.Errorf("the summary has %d, want %d", total, 10_000-one)
	}
	if total, attrs := r.Summary(); total != 0 || len(attrs) != 0 {
		t.Errorf("the next summary has %d: %v", total, attrs)
	}
	r = NewRate[outcome]()
	for i := range uint32(10_000) {
		if r.Allow(perSecond, "tls_failed", source4(i), now.Add(time.Duration(i)*time.Millisecond)) {
			all++
		}
	}
	if want := perSecond * 10; all < want || all > want+refusalBurst*perSecond+1 {
		t.Errorf("%d lines in ten seconds, want some %d", all, want)
	}
	if n := r.sources.Len(); n > loggedSources {
		t.Errorf("%d sources are remembered", n)
	}
	if !r.Allow(0, "tls_failed", source4(1), now) {
		t.Error("a rate of 0 is a limit")
	}
}
