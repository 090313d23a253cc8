package tlsrecord

// Cache bounds how many Layers have their ciphers at hand, each of which takes a
// kilobyte or two. One that is not among them makes them again at its next record. The
// Layers of a Cache must be used by one goroutine.
type Cache struct {
	slots []*Layer
	next  int
}

// NewCache returns a Cache for the ciphers of n Layers.
func NewCache(n int) *Cache { return &Cache{slots: make([]*Layer, n)} }

// add gives l a place: a free one, or that of a Layer that has not been used since it was
// last passed over.
func (c *Cache) add(l *Layer) {
	for {
		c.next = (c.next + 1) % len(c.slots)
		old := c.slots[c.next]
		switch {
		case old == nil:
		case old.used:
			old.used = false
			continue
		default:
			old.in.cipher, old.out.cipher, old.slot = nil, nil, -1
		}
		c.slots[c.next], l.slot = l, c.next
		return
	}
}

// Use puts the Layer into a cache, with the ciphers that it has, or takes it out of the one
// it is in (nil).
func (l *Layer) Use(c *Cache) {
	if l.cache != nil && l.slot >= 0 {
		l.cache.slots[l.slot] = nil
	}
	l.cache, l.slot = c, -1
	if c != nil && (l.in.cipher != nil || l.out.cipher != nil) {
		c.add(l)
	}
}
