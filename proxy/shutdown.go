package proxy

import (
	"sync"
	"sync/atomic"
)

// shutdown is how far a Shutdown has come.
type shutdown struct {
	begun        atomic.Bool
	handsOver    atomic.Bool
	refusesConns atomic.Bool // the accept loops end
	live         liveCount
	once         sync.Once
	done         chan struct{} // closed when there are no sessions any more
}

// liveCount counts the sessions that the relay has.
type liveCount struct {
	mu   sync.Mutex
	n    int
	zero chan struct{} // closed when n is 0; nil: nobody waits
}

func (l *liveCount) add(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.n += n
	if l.n == 0 && l.zero != nil {
		close(l.zero)
		l.zero = nil
	}
}

// none returns a channel that is closed when there is no live session.
func (l *liveCount) none() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	zero := l.zero
	if zero == nil {
		zero = make(chan struct{})
	}
	if l.n == 0 {
		close(zero)
	} else {
		l.zero = zero
	}
	return zero
}
