//go:build !linux

package proxy

// relay moves the bytes of sessions, with two goroutines each.
type relay struct {
	count func(up, down int)
	alarm func(panicked any)
}

func newRelay(count func(up, down int), alarm func(panicked any)) (*relay, error) {
	return &relay{count, alarm}, nil
}

func (r *relay) stop() {}

// start takes a session over.
func (r *relay) start(h handover) (reins, error) {
	p := newPump(h, r.count, r.alarm)
	go p.run()
	return p.reins(), nil
}
