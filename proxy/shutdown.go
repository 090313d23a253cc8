package proxy

import (
	"sync"
	"sync/atomic"

	"pgwicket/internal/limit"
	"pgwicket/internal/socket"
)

// shutdown is how far a Shutdown has come.
type shutdown struct {
	begun     atomic.Bool
	handsOver atomic.Bool
	upgraded  atomic.Bool // a new process has the listening sockets
	accepting socket.Pause
	live      limit.Live // the sessions that the relay has
	once      sync.Once
	done      chan struct{} // closed when there are no sessions any more
}
