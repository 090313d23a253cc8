package backend

import "sync"

// Keys are the cancel keys of live sessions, and the host of each. Any goroutine may call
// its methods. The zero value has none.
type Keys struct {
	mu    sync.Mutex
	hosts map[string]*Host
}

// Add adds the key of a session at a host; an empty one is none.
func (k *Keys) Add(key string, at *Host) {
	if key == "" {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.hosts == nil {
		k.hosts = make(map[string]*Host)
	}
	k.hosts[key] = at
}

// Remove removes a key.
func (k *Keys) Remove(key string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.hosts, key)
}

// Host returns where the session with that key is; nil: it is none of ours.
func (k *Keys) Host(key string) *Host {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.hosts[key]
}
