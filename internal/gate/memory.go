package gate

import (
	"runtime"
	"runtime/debug"
	"time"
)

// minGarbage is how much garbage gathers, at least, before the runtime collects it. A gate
// with few sessions has a heap of a megabyte, which the runtime lets grow to 4 MiB: with 64 KiB
// of garbage for a connection it would collect after every 30, and a collection costs some
// milliseconds.
const minGarbage = 8 << 20

// gatherGarbage has minGarbage hold until stop is called. The runtime has no setting for it
// (golang/go#44309), but it lets as much garbage gather as the heap holds, and here is
// something for it to hold. Nobody writes it, so it takes no resident memory.
func gatherGarbage() (stop func()) {
	held := make([]byte, minGarbage)
	return func() { runtime.KeepAlive(held) }
}

// A handshake leaves some 80 KiB of garbage, nearly all of it crypto/tls's. After many of
// them the runtime keeps as much again as the sessions weigh, for more garbage, and a gate
// at rest makes none.
const (
	memoryInterval = 2 * time.Second
	memoryStep     = 500 // sessions
)

// memoryReturn decides when memory is given back to the system. The zero value is ready
// for use.
type memoryReturn struct {
	last     int // sessions, when it was last asked
	returned int // when memory was last given back
}

// due reports whether it is time: there are many more sessions than the last time, and no
// more come.
func (m *memoryReturn) due(sessions int) bool {
	rests := sessions <= m.last
	m.last = sessions
	m.returned = min(m.returned, sessions)
	if !rests || sessions < m.returned+m.returned/4+memoryStep {
		return false
	}
	m.returned = sessions
	return true
}

// returnMemory gives memory back, by how many sessions there are, until stop is called.
func returnMemory(sessions func() int) (stop func()) {
	ended := make(chan struct{})
	go func() {
		ticker := time.NewTicker(memoryInterval)
		defer ticker.Stop()
		for memory := (memoryReturn{}); ; {
			select {
			case <-ended:
				return
			case <-ticker.C:
				if memory.due(sessions()) {
					debug.FreeOSMemory()
				}
			}
		}
	}()
	return func() { close(ended) }
}
