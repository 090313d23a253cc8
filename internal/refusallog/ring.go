// Package refusallog keeps a flood of refused connections from filling the memory and the log.
package refusallog

import "sync"

// kept bounds what a flood can make the gate remember.
const kept = 100

// Ring remembers the last hundred values. The zero Ring is empty. Its methods may be called
// concurrently.
type Ring[T any] struct {
	mu   sync.Mutex
	kept [kept]T
	n    int // since the start
}

// Add remembers one more.
func (r *Ring[T]) Add(one T) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.kept[r.n%kept] = one
	r.n++
}

// Last returns them, the newest first.
func (r *Ring[T]) Last() []T {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]T, 0, min(r.n, kept))
	for i := r.n - 1; i >= 0 && len(all) < kept; i-- {
		all = append(all, r.kept[i%kept])
	}
	return all
}
