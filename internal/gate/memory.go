package gate

import (
	"runtime/debug"
	"time"
)

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
