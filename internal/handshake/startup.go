package handshake

import (
	"errors"
	"io"
	"os"

	"pgwicket/internal/outcome"
	"pgwicket/internal/pgwire"
	"pgwicket/internal/relay"
)

// ReadRefusal says why a startup packet could not be read. It is an *outcome.Refusal.
func ReadRefusal(err error) error {
	switch {
	case errors.Is(err, io.EOF):
		return outcome.Refuse(outcome.Probe, "closed before it asked for anything")
	case errors.Is(err, os.ErrDeadlineExceeded):
		return outcome.Refuse(outcome.StartupTimeout, "no complete startup packet in time")
	case errors.Is(err, ErrTooLarge), errors.Is(err, ErrTooManyRecords):
		return outcome.Refuse(outcome.InvalidPacket, err.Error())
	case errors.Is(err, pgwire.ErrLength), errors.Is(err, pgwire.ErrLayout):
		return outcome.Refuse(outcome.InvalidPacket, err.Error())
	case errors.Is(err, io.ErrUnexpectedEOF), relay.IsReset(err):
		return outcome.Refuse(outcome.ClientGone, "in the middle of its startup")
	}
	return outcome.Refuse(outcome.TLSFailed, err.Error())
}

// WriteRefusal says why an answer to a startup packet could not be written; nil: it was. It is
// an *outcome.Refusal.
func WriteRefusal(err error) error {
	if err == nil {
		return nil
	}
	return outcome.Refuse(outcome.ClientGone, err.Error())
}

// StartupRefusal says why a startup message is refused, which is an *outcome.Refusal for an
// error of pgwire.ParseStartup. The words are safe to show: pgwire quotes what is the client's.
func StartupRefusal(err error) error {
	var p *pgwire.ProtocolError
	if !errors.As(err, &p) {
		return err
	}
	r := &outcome.Refusal{Outcome: outcome.ProtocolViolation, Public: p.Message, Detail: p.Message}
	switch p.SQLSTATE {
	case pgwire.SQLStateFeatureNotSupported:
		r.Outcome = outcome.UnsupportedProtocol
	case pgwire.SQLStateInvalidAuthorization:
		r.Outcome = outcome.NoUser
	case pgwire.SQLStateInsufficientPrivilege:
		r.Outcome = outcome.ReservedSetting
	case pgwire.SQLStateInvalidParameterValue:
		r.Outcome = outcome.InvalidParameter
	}
	return r
}
