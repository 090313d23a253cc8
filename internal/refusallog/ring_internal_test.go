package refusallog

import (
	"fmt"
	"sync"
	"testing"
)

func TestRingKeepsTheLast(t *testing.T) {
	t.Parallel()
	var r Ring[string]
	if got := r.Last(); len(got) != 0 {
		t.Errorf("%d of none", len(got))
	}
	for i := range 250 {
		r.Add(fmt.Sprint(i))
		got := r.Last()
		if want := min(i+1, 100); len(got) != want || got[0] != fmt.Sprint(i) || got[want-1] != fmt.Sprint(i-want+1) {
			t.Fatalf("after %d: %d from %s to %s", i, len(got), got[0], got[len(got)-1])
		}
	}
}

func TestRingAtOnce(t *testing.T) {
	t.Parallel()
	var r Ring[string]
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 500 {
				r.Add("u")
				_ = r.Last()
			}
		})
	}
	all.Wait()
	if len(r.Last()) != 100 || r.n != 4000 {
		t.Errorf("%d of %d", len(r.Last()), r.n)
	}
}
