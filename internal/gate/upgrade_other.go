//go:build !linux

package gate

import (
	"errors"
	"net/http"
	"os"
	"time"

	"pgwicket/acl"
)

const formatVersion = 0 // none

// successor is the new process of an upgrade, which there is on Linux only.
type successor struct{}

func (*successor) finish(func() <-chan error) error { return nil }

var errSuccessorGone = errors.New("the new process is gone")

// Predecessor is the process before this one, which there is on Linux only. nil is none.
type Predecessor struct {
	pid     int
	version string
}

// MeetPredecessor fails.
func MeetPredecessor(string, string) (*Predecessor, error) { return nil, errUpgradeSystem }

// AdoptLog fails.
func (*Predecessor) AdoptLog() error { return errUpgradeSystem }

func (*Predecessor) confineAs() error { return nil }

func (*Predecessor) take(string, string) *os.File { return nil }

func (*Predecessor) switchOver(*Gate) error { return errUpgradeSystem }

func (*Predecessor) serving() error { return nil }

func (*Predecessor) fail(error) {}

func (*Predecessor) stop() {}

func (*Predecessor) ask(string, string, time.Duration) ([]byte, error) { return nil, errUpgradeSystem }

func (*Predecessor) terminate(func(*acl.Request) bool, string) {}

func (g *Gate) serveUpgrade(w http.ResponseWriter, _ *http.Request) {
	http.Error(w, errUpgradeSystem.Error(), http.StatusConflict)
}
