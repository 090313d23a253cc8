package limit

import "sync"

// Live counts what is live, and tells when there is nothing left. The zero value counts 0.
type Live struct {
	mu   sync.Mutex
	n    int
	zero chan struct{} // closed when n is 0; nil: nobody waits
}

// Add changes the count.
func (l *Live) Add(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.n += n
	if l.n == 0 && l.zero != nil {
		close(l.zero)
		l.zero = nil
	}
}

// None returns a channel that is closed when there is nothing left.
func (l *Live) None() <-chan struct{} {
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
