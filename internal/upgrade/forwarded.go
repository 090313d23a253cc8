package upgrade

import (
	"context"
	"net/http"
	"sync"
)

// ByParameter is, in the query of a command for the old process, who has sent it.
const ByParameter = "by"

type forwardedKey struct{}

// Forwarded serves what the new process has the old one do.
func Forwarded(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), forwardedKey{}, r.URL.Query().Get(ByParameter))))
	})
}

// ForwardedBy reports whether a request is from the new process, and who has sent that the command. It has the line of
// the command in the audit trail.
func ForwardedBy(ctx context.Context) (by string, forwarded bool) {
	by, forwarded = ctx.Value(forwardedKey{}).(string)
	return by, forwarded
}

// Elsewhere is the answer to a command that has come to the process that hands over.
const Elsewhere = "another process of the gate is taking over; nothing has been done: repeat the command"

// Commands are those that change what a new process gets. The zero value is ready.
type Commands struct {
	mu     sync.RWMutex // is held for reading while one is carried out
	paused bool
}

// Serve serves a command. While they are paused, only the new process can send one: it would know nothing of another, which
// has come on a connection from before.
func (c *Commands) Serve(serve http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if _, forwarded := ForwardedBy(r.Context()); !forwarded {
			c.mu.RLock()
			defer c.mu.RUnlock()
			if c.paused {
				http.Error(w, Elsewhere, http.StatusServiceUnavailable)
				return
			}
		}
		serve(w, r)
	}
}

// Pause waits for the commands that are being carried out, and begins or ends the pause.
func (c *Commands) Pause(on bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.paused = on
}
