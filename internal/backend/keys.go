package backend

import (
	"sync"

	"pgwicket/internal/limit"
)

// Keys are the cancel keys of live sessions. Any goroutine may call its methods. The zero
// value has none.
type Keys struct {
	mu   sync.Mutex
	keys map[string]*Key
}

// Key is the cancel key of a live session.
type Key struct {
	Host    *Host            // where the session is
	Cancels limit.KeyCancels // with that key
}

// Add adds the key of a session at a host; an empty one is none.
func (k *Keys) Add(key string, at *Host) {
	if key == "" {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.keys == nil {
		k.keys = make(map[string]*Key)
	}
	k.keys[key] = &Key{Host: at}
}

// Remove removes a key.
func (k *Keys) Remove(key string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.keys, key)
}

// Find returns a key; nil: it is none of ours.
func (k *Keys) Find(key string) *Key {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.keys[key]
}
