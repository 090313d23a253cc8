package proxy

import (
	"sync"
	"sync/atomic"
)

// lifecycle is how far a Server is on the way to its end.
type lifecycle struct {
	shuttingDown atomic.Bool
	accepting    atomic.Bool // until stopAccepting
	handsOver    atomic.Bool // see HandOver
	live         liveCount

	stopOnce     sync.Once
	stopped      chan struct{} // closed when there are no sessions any more
	maintainDone chan struct{} // closed when maintain has returned
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
