//go:build !linux

package upgrade

import (
	"net"
	"os"
	"time"

	"pgwicket/acl"
)

// Format is 0: there is none.
const Format = 0

// AccountOf fails.
func AccountOf(int, int) (Account, error) { return Account{}, ErrSystem }

// CheckSocket fails.
func (Account) CheckSocket(string) error { return ErrSystem }

// Successor is the new process of an upgrade, which there is on Linux only.
type Successor struct{}

// Accept fails.
func Accept(net.Conn, OldGate) (*Successor, error) { return nil, ErrSystem }

// Run reports false.
func (*Successor) Run() bool { return false }

// Withdraw reports false.
func (*Successor) Withdraw(string) bool { return false }

// Signal does nothing.
func (*Successor) Signal(os.Signal) {}

// Finish fails.
func (*Successor) Finish(func() <-chan error, <-chan struct{}) error { return ErrSystem }

// Predecessor is the process before this one, which there is on Linux only. nil is none.
type Predecessor struct {
	PID     int
	Version string
}

// Meet fails.
func Meet(string, string, string) (*Predecessor, error) { return nil, ErrSystem }

// AdoptLog fails.
func (*Predecessor) AdoptLog() error { return ErrSystem }

// Take returns nil.
func (*Predecessor) Take(string, string) *os.File { return nil }

// TakeOver fails.
func (*Predecessor) TakeOver(NewGate) error { return ErrSystem }

// Claim fails.
func (*Predecessor) Claim() error { return ErrSystem }

// Serving does nothing.
func (*Predecessor) Serving(func()) {}

// Fail does nothing.
func (*Predecessor) Fail(error) {}

// Stop does nothing.
func (*Predecessor) Stop() {}

// Ask fails.
func (*Predecessor) Ask(string, string, time.Duration) ([]byte, error) { return nil, ErrSystem }

// Terminate does nothing.
func (*Predecessor) Terminate(func(*acl.Request) bool, string) {}
