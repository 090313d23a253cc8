package upgrade

import (
	"syscall"
	"time"

	"pgwicket/internal/health"
	"pgwicket/internal/lock"
	"pgwicket/proxy"
)

// The texts of frames.
type (
	// hello is the new process's.
	hello struct {
		Format   int    `json:"format"`
		Version  string `json:"version"`
		StateDir string `json:"state_dir"` // see directoryID
	}
	// welcome is the old process's. What systemd has set in its environment is not in that of the new one.
	welcome struct {
		Format       int    `json:"format"`
		Version      string `json:"version"`
		Sockets      int    `json:"sockets"` // frames that follow
		Files        uint64 `json:"files"`   // that the new process must be able to open at a time
		NotifySocket string `json:"notify_socket"`
		WatchdogUsec string `json:"watchdog_usec"`
	}
	// state is a part of what the old process knows.
	state struct {
		Server   proxy.ClientState `json:"server"`
		Places   []proxy.Place     `json:"places"`
		Locks    []lock.Lock       `json:"locks"` // that the file of the new process has not
		Backends []health.State    `json:"backends"`
	}
	// handed says what the old process still has when the new one begins to accept.
	handed struct {
		Sessions int           `json:"sessions"`
		Starting int           `json:"starting"`
		Drain    time.Duration `json:"drain"`
	}
	ended struct {
		IDs []string `json:"ids"`
	}
	accepted struct {
		Refused []string `json:"refused"` // sessions of the batch that stay
	}
	rest struct {
		Moved int `json:"moved"`
		Stay  int `json:"stay"`
	}
	signalled struct {
		Signal syscall.Signal `json:"signal"`
	}
	failure struct {
		Reason string `json:"reason"`
	}
)
