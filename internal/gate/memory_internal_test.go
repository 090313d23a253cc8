package gate

import (
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"
)

// Memory is given back when a wave of sessions is over, and not for a few, nor again and
// again.
func TestMemoryReturn(t *testing.T) {
	t.Parallel()
	var m memoryReturn
	for i, step := range []struct {
		sessions int
		due      bool
	}{
		{400, false},
		{400, false}, // a few
		{1000, false},
		{1500, false}, // they still come
		{1500, true},
		{1500, false},
		{1400, false},
		{1500, false},
		{1500, false},
		{2200, false},
		{2200, false}, // less than a quarter and a step more
		{3300, false},
		{3290, true},
		{100, false},
		{100, false}, // a smaller wave after the large one
		{900, false},
		{900, true},
	} {
		if due := m.due(step.sessions); due != step.due {
			t.Errorf("step %d, %d sessions: due is %t", i, step.sessions, due)
		}
	}
}

// Garbage is collected when there is enough of it, and what makes the runtime wait is not
// resident.
func TestGatherGarbage(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(100))
	debug.FreeOSMemory()
	before := resident(t)
	defer gatherGarbage()()
	runtime.GC()
	if more := resident(t) - before; more > minGarbage/2 {
		t.Errorf("%d bytes more are resident", more)
	}
	var began, ended runtime.MemStats
	runtime.ReadMemStats(&began)
	const total = 16 * minGarbage
	page := os.Getpagesize() // a size that the compiler does not know: it is on the heap
	for range total / page {
		runtime.KeepAlive(make([]byte, page))
	}
	runtime.ReadMemStats(&ended)
	if n := ended.NumGC - began.NumGC; n > total/minGarbage {
		t.Errorf("%d collections for %d bytes, want one for each %d at most", n, total, minGarbage)
	}
}

// resident returns the resident memory of the process in bytes, and 0 where /proc does not say.
func resident(t *testing.T) int {
	t.Helper()
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	pages, err := strconv.Atoi(strings.Fields(string(b))[1])
	if err != nil {
		t.Fatal(err)
	}
	return pages * os.Getpagesize()
}
