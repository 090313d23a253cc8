//go:build !unix

package sandbox

import (
	"errors"
	"log/slog"

	"pgwicket/config"
	"pgwicket/proxy"
)

// Become fails: other systems than Unix have no setuid.
func (*Account) Become() error {
	return errors.New("user: this system cannot change the account of a process")
}

// WarnUnreadable does nothing, as Become has failed.
func (*Account) WarnUnreadable(*slog.Logger, []config.Name, []*proxy.Host) {}

// current returns nil: files have no owners here that an Account could describe.
func current() *Account { return nil }

func cannotWrite(string) error { return nil }

func (*Account) denied(string) (path, fix string) { return "", "" }
