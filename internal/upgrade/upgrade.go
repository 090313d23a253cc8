// Package upgrade lets a new process go on with the sockets, the state and the sessions of a gate, over the channel of
// internal/handover. Successor is the new process, as the old one sees it; Predecessor is the old process, as the new
// one sees it. Only Linux has upgrades.
package upgrade

import (
	"errors"
	"log/slog"
	"net/http"
	"os"
	"time"

	"pgwicket/internal/lock"
	"pgwicket/metrics"
	"pgwicket/proxy"
)

// ErrSystem is why there can be no upgrade where Format is 0.
var ErrSystem = errors.New("only Linux has upgrades; restart the gate")

// ErrSuccessorGone is why the old process must accept connections again.
var ErrSuccessorGone = errors.New("the new process is gone")

// ErrEnded is why the old process is not asked any more.
var ErrEnded = errors.New("the process before has ended")

// Gate is what both processes have.
type Gate struct {
	Server  *proxy.Server
	Metrics *metrics.Set
	Locks   *lock.Table
	Log     *slog.Logger
	Now     func() time.Time
}

// OldGate is a gate that hands over.
type OldGate struct {
	Gate
	Version      string
	DrainTimeout time.Duration // how long sessions may stay
	Sockets      []OpenSocket  // that the new process gets
	Commands     *http.Server  // answers the new process as the admin socket does
	Pause        func()        // holds up every accept loop
	Resume       func()        // ends Pause
	Accepts      func(pid int) // is called when the new process accepts connections
	Stop         func()        // is called when the new process has been told to stop: this one must not accept again
	Stopping     func() bool   // after Stop, or a signal
}

// NewGate is a gate that takes over.
type NewGate struct {
	Gate
	LocksAdded func()          // is called when Locks has more
	Upgraded   func(Result)    // is called when the old process has handed over what it can; nil: nobody needs it
	Signal     func(os.Signal) // is called for a signal that the old process has got for the gate; it must not block
}

// Socket says what a passed descriptor is.
type Socket struct {
	Role    string `json:"role"`
	Address string `json:"address"` // of a listener, or the path of the admin socket
}

// OpenSocket is a socket to pass: a file, a listener or a connection.
type OpenSocket struct {
	Socket
	Conn any
}

// The roles of passed sockets.
const (
	RoleListener     = "listener"
	RoleActivated    = "activated" // a listener that the service manager has opened, and keeps open
	RoleAdminAddress = "admin address"
	RoleAdminSocket  = "admin socket"
	roleCommands     = "commands" // a connection to the old process, which answers as its admin socket did
	roleLog          = "log"
)

// Path is where the admin socket says what an upgrade would do (GET), and where a new process asks
// for one (POST): the connection then goes on as the channel of internal/handover.
const Path = "/upgrade"

// Plan is the answer at Path.
type Plan struct {
	PID      int    `json:"pid"`
	Version  string `json:"version"`
	Format   int    `json:"format"`   // of the channel
	UID      int    `json:"uid"`      // the account that the new process must have; root asks AccountOf
	Sessions int    `json:"sessions"` // open
	Movable  int    `json:"movable"`  // of them, those that the new process goes on with
	Starting int    `json:"starting"` // connections that are no sessions yet; they are finished by the old process
	// DrainTimeout is how long sessions may stay in the old process.
	DrainTimeout time.Duration `json:"drain_timeout"`
	Program      string        `json:"program"` // see ProgramID; of the file that it runs
	// Credentials are files that systemd has given to the unit of the gate alone (LoadCredential=).
	Credentials []string `json:"credentials"`
	Problem     string   `json:"problem"` // why there can be no upgrade now; empty: there can be
}

// Account is the account of a process, and its groups.
type Account struct {
	UID, GID int
	Groups   []int
}

// Result is what an upgrade has done.
type Result struct {
	PID      int           `json:"pid"` // of the process before
	Version  string        `json:"version"`
	Moved    int           `json:"moved"`    // sessions that this process goes on with
	Stay     int           `json:"stay"`     // sessions that the process before still has
	Starting int           `json:"starting"` // connections in their startup that it still has
	Drain    time.Duration `json:"drain"`    // the longest that they may take
}
