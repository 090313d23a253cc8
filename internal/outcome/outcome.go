// Package outcome is the one table of how a connection may end: what each outcome is called in logs and metrics, and what
// the client is told.
package outcome

import (
	"iter"
	"log/slog"
	"strings"
	"time"

	"pgwicket/internal/pgwire"
)

// Outcome says how a connection ended. The set is closed: an outcome is the
// label of a metric, the reason in the log, and what decides which SQLSTATE
// and which words the client gets.
type Outcome uint8

// The outcomes. Those of one group stand together; see the table below for
// what each means to the client and to the log.
const (
	// Refused before TLS.
	SourceNotAllowed Outcome = iota
	SourceDenied
	ProxyHeaderInvalid
	ProxyHeaderRefused
	Probe
	InvalidPacket
	Plaintext
	RepeatedRequest
	StartupTimeout
	ClientGone
	ConnectionLimit
	SourceLimit
	RateLimit
	StartupLimit

	// Refused by the TLS handshake.
	NotTLS
	TLSTimeout
	TLSVersion
	TLSCipher
	TLSGroup
	TLSALPN
	TLSRejectedByClient
	HandshakeTooLarge
	TLSFailed

	// Refused for the client's certificate.
	CertMissing
	CertExpired
	CertNotYetValid
	CertRevoked
	CertUnknownCA
	CertWrongPurpose
	CertNameConstraint
	CertWeakKey
	CertInvalid
	CRLMissing
	CRLStale

	// Refused for the startup packet, or for want of a backend.
	ProtocolViolation
	UnsupportedProtocol
	NoUser
	ReservedSetting
	InvalidParameter
	NoRule
	RuleRejected
	Locked
	RuleLimit
	AccountLimit
	AuthBackoff
	AuditUnavailable
	BackendUnavailable
	ShuttingDown
	InternalError

	// Sessions that were admitted, by what ended them.
	AuthenticationFailed
	BackendRefused
	OAuthDiscovery
	LoginTimeout
	ClientClosed
	ClientLost
	TLSRecordLimit
	BackendClosed
	BackendLost
	IdleTimeout
	UnfinishedRequest
	SessionLifetime
	Drained
	DrainTimeout
	Terminated

	// Cancel requests.
	CancelForwarded
	CancelOverLimit
	CancelUnknownKey
	CancelFailed

	outcomeCount
)

// Meaning is one row of the table.
type Meaning struct {
	Label    string
	SQLSTATE string     // empty: the client is told nothing
	Public   string     // what the client is told where the refusal brings no words of its own
	Level    slog.Level // of the line in the log
	TLS      bool       // it counts as a failed handshake
}

// Meaning returns the row of the outcome.
func (o Outcome) Meaning() Meaning { return outcomes[o] }

// All returns every outcome with its row, in order.
func All() iter.Seq2[Outcome, Meaning] {
	return func(yield func(Outcome, Meaning) bool) {
		for o, m := range outcomes {
			if !yield(Outcome(o), m) {
				return
			}
		}
	}
}

// outcomes is the one table of refusals: what each outcome is called in logs and
// metrics, and what the client is told. PostgreSQL's habits decide: a policy's
// refusal is 28000, and an unreadable packet is closed without a word.
var outcomes = [outcomeCount]Meaning{
	SourceNotAllowed:   {"source_not_allowed", pgwire.SQLStateInvalidAuthorization, "no pgwicket allowlist entry for this address", slog.LevelWarn, false},
	SourceDenied:       {"source_denied", pgwire.SQLStateInvalidAuthorization, "no pgwicket allowlist entry for this address", slog.LevelWarn, false},
	ProxyHeaderInvalid: {"proxy_header_invalid", "", "", slog.LevelWarn, false},
	ProxyHeaderRefused: {"proxy_header_refused", "", "", slog.LevelWarn, false},
	Probe:              {"probe", "", "", slog.LevelDebug, false},
	InvalidPacket:      {"invalid_packet", "", "", slog.LevelInfo, false},
	Plaintext:          {"plaintext", pgwire.SQLStateInvalidAuthorization, "connection requires TLS", slog.LevelWarn, false},
	RepeatedRequest:    {"repeated_request", pgwire.SQLStateFeatureNotSupported, "SSLRequest and GSSENCRequest may be sent once each", slog.LevelWarn, false},
	StartupTimeout:     {"startup_timeout", pgwire.SQLStateQueryCanceled, "canceling startup due to timeout", slog.LevelInfo, false},
	ClientGone:         {"client_gone", "", "", slog.LevelInfo, false},
	// The first of them is of the gate, and another gate may have room: 57P03 has libpq
	// try its next host. The others are the client's own.
	ConnectionLimit: {"connection_limit", pgwire.SQLStateCannotConnectNow, "sorry, too many clients already", slog.LevelWarn, false},
	SourceLimit:     {"source_limit", pgwire.SQLStateTooManyConnections, "too many connections from this address", slog.LevelWarn, false},
	RateLimit:       {"rate_limit", pgwire.SQLStateTooManyConnections, "too many new connections from this address", slog.LevelWarn, false},
	StartupLimit:    {"startup_limit", "", "", slog.LevelWarn, false},

	NotTLS:              {"not_tls", "", "", slog.LevelWarn, true},
	TLSTimeout:          {"tls_timeout", "", "", slog.LevelInfo, true},
	TLSVersion:          {"tls_version", pgwire.SQLStateInvalidAuthorization, "TLS version is not allowed", slog.LevelWarn, true},
	TLSCipher:           {"tls_cipher", pgwire.SQLStateInvalidAuthorization, "TLS cipher suite is not allowed", slog.LevelWarn, true},
	TLSGroup:            {"tls_group", pgwire.SQLStateInvalidAuthorization, "TLS key exchange group is not allowed", slog.LevelWarn, true},
	TLSALPN:             {"tls_alpn", "", "", slog.LevelWarn, true},
	TLSRejectedByClient: {"tls_rejected_by_client", "", "", slog.LevelWarn, true},
	HandshakeTooLarge:   {"handshake_too_large", "", "", slog.LevelWarn, true},
	TLSFailed:           {"tls_failed", "", "", slog.LevelWarn, true},

	CertMissing:        {"certificate_missing", pgwire.SQLStateInvalidAuthorization, "connection requires a valid client certificate", slog.LevelWarn, true},
	CertExpired:        {"certificate_expired", pgwire.SQLStateInvalidAuthorization, "client certificate expired", slog.LevelWarn, true},
	CertNotYetValid:    {"certificate_not_yet_valid", pgwire.SQLStateInvalidAuthorization, "client certificate is not valid yet", slog.LevelWarn, true},
	CertRevoked:        {"certificate_revoked", pgwire.SQLStateInvalidAuthorization, "client certificate was revoked", slog.LevelWarn, true},
	CertUnknownCA:      {"certificate_unknown_ca", pgwire.SQLStateInvalidAuthorization, "client certificate is signed by an unknown authority", slog.LevelWarn, true},
	CertWrongPurpose:   {"certificate_wrong_purpose", pgwire.SQLStateInvalidAuthorization, "client certificate is not meant for client authentication", slog.LevelWarn, true},
	CertNameConstraint: {"certificate_name_constraint", pgwire.SQLStateInvalidAuthorization, "client certificate has a name that its CA may not certify", slog.LevelWarn, true},
	CertWeakKey:        {"certificate_weak_key", pgwire.SQLStateInvalidAuthorization, "client certificate has a key or a signature that is too weak", slog.LevelWarn, true},
	CertInvalid:        {"certificate_invalid", pgwire.SQLStateInvalidAuthorization, "client certificate is not valid", slog.LevelWarn, true},
	CRLMissing:         {"crl_missing", pgwire.SQLStateInvalidAuthorization, "client certificate could not be checked for revocation", slog.LevelError, true},
	CRLStale:           {"crl_stale", pgwire.SQLStateInvalidAuthorization, "client certificate could not be checked for revocation", slog.LevelError, true},

	ProtocolViolation:   {"protocol_violation", pgwire.SQLStateProtocolViolation, "invalid startup packet", slog.LevelWarn, false},
	UnsupportedProtocol: {"unsupported_protocol", pgwire.SQLStateFeatureNotSupported, "unsupported frontend protocol", slog.LevelWarn, false},
	NoUser:              {"no_user", pgwire.SQLStateInvalidAuthorization, "no PostgreSQL user name specified in startup packet", slog.LevelWarn, false},
	ReservedSetting:     {"reserved_setting", pgwire.SQLStateInsufficientPrivilege, "settings that begin with pgwicket. are not a client's to send", slog.LevelWarn, false},
	InvalidParameter:    {"invalid_parameter", pgwire.SQLStateInvalidParameterValue, "invalid value for a parameter", slog.LevelWarn, false},
	NoRule:              {"no_rule", pgwire.SQLStateInvalidAuthorization, "no pgwicket rule for this session", slog.LevelWarn, false},
	RuleRejected:        {"rule_rejected", pgwire.SQLStateInvalidAuthorization, "pgwicket rejects this session", slog.LevelWarn, false},
	Locked:              {"locked", pgwire.SQLStateInvalidAuthorization, "pgwicket rejects this session", slog.LevelWarn, false},
	RuleLimit:           {"rule_limit", pgwire.SQLStateTooManyConnections, "too many connections of this kind", slog.LevelWarn, false},
	AccountLimit:        {"account_limit", pgwire.SQLStateTooManyConnections, "too many connections for this role and database", slog.LevelWarn, false},
	AuthBackoff:         {"auth_backoff", pgwire.SQLStateInvalidAuthorization, "too many failed authentications; try again later", slog.LevelWarn, false},
	AuditUnavailable:    {"audit_unavailable", pgwire.SQLStateCannotConnectNow, "the gate admits no new sessions now", slog.LevelError, false},
	BackendUnavailable:  {"backend_unavailable", pgwire.SQLStateCannotConnectNow, "the database cannot be reached", slog.LevelError, false},
	ShuttingDown:        {"shutting_down", pgwire.SQLStateCannotConnectNow, "the gate is shutting down", slog.LevelInfo, false},
	InternalError:       {"internal_error", pgwire.SQLStateInternalError, "internal error", slog.LevelError, false},

	AuthenticationFailed: {"authentication_failed", "", "", slog.LevelWarn, false},
	BackendRefused:       {"backend_refused", "", "", slog.LevelWarn, false},
	OAuthDiscovery:       {"oauth_discovery", "", "", slog.LevelInfo, false},
	LoginTimeout:         {"login_timeout", "", "", slog.LevelWarn, false},
	ClientClosed:         {"client_closed", "", "", slog.LevelInfo, false},
	ClientLost:           {"client_lost", "", "", slog.LevelInfo, false},
	TLSRecordLimit:       {"tls_record_limit", "", "", slog.LevelWarn, false},
	BackendClosed:        {"backend_closed", "", "", slog.LevelInfo, false},
	BackendLost:          {"backend_lost", "", "", slog.LevelInfo, false},
	IdleTimeout:          {"idle_timeout", "", "", slog.LevelInfo, false},
	UnfinishedRequest:    {"unfinished_request", "", "", slog.LevelInfo, false},
	SessionLifetime:      {"session_lifetime", "", "", slog.LevelInfo, false},
	Drained:              {"drained", "", "", slog.LevelInfo, false},
	DrainTimeout:         {"drain_timeout", "", "", slog.LevelWarn, false},
	Terminated:           {"terminated", "", "", slog.LevelWarn, false},

	CancelForwarded:  {"forwarded", "", "", slog.LevelInfo, false},
	CancelOverLimit:  {"over_limit", "", "", slog.LevelWarn, false},
	CancelUnknownKey: {"unknown_key", "", "", slog.LevelWarn, false},
	CancelFailed:     {"failed", "", "", slog.LevelWarn, false},
}

// String returns the outcome as metrics and logs name it.
func (o Outcome) String() string { return outcomes[o].Label }

// MayEnd reports of an outcome of new connections that a recheck may end a live
// session with it.
func (o Outcome) MayEnd() bool {
	switch o {
	case SourceNotAllowed, SourceDenied, ProxyHeaderRefused, StartupLimit, AuthBackoff, TLSVersion, TLSCipher, TLSGroup, NoRule, RuleRejected, Locked, AccountLimit, InternalError:
		return true
	}
	return CertMissing <= o && o <= CRLStale
}

// A Refusal is why a connection is not admitted, or why a session is ended that
// would not be admitted any more.
type Refusal struct {
	Outcome Outcome
	Public  string    // what the client is told; empty: the words of the outcome
	Detail  string    // what the log says besides; may name what the client must not learn
	Expired time.Time // of CertExpired: when the certificate, or the CA above it, expired; zero: not known
}

func (r *Refusal) Error() string {
	if r.Detail == "" {
		return r.Outcome.String()
	}
	return r.Outcome.String() + ": " + r.Detail
}

// Message returns the FATAL that tells the client of r; an empty SQLSTATE
// means that it is told nothing.
func (r *Refusal) Message() (sqlstate, text string) {
	f := outcomes[r.Outcome]
	if r.Public != "" {
		return f.SQLSTATE, r.Public
	}
	return f.SQLSTATE, f.Public
}

// Refuse returns a Refusal.
func Refuse(o Outcome, detail string) error { return &Refusal{Outcome: o, Detail: detail} }

// RefuseCertificate returns the refusal of a client for a certificate. The client is told the words of the outcome, with
// the date if there is one: when the certificate expired, begins to be valid or was revoked. isCA means that the date is
// that of a CA above the client's certificate. The detail is for the log.
func RefuseCertificate(o Outcome, isCA bool, date time.Time, detail string) *Refusal {
	r := &Refusal{Outcome: o, Detail: detail}
	if date.IsZero() {
		return r
	}
	if o == CertExpired {
		r.Expired = date
	}
	day := date.UTC().Format(time.DateOnly)
	r.Public = outcomes[o].Public + " on " + day
	if o == CertNotYetValid { // "is not valid yet"
		r.Public = strings.TrimSuffix(outcomes[o].Public, " yet") + " before " + day
	}
	if isCA {
		r.Public = "a CA of the " + r.Public
	}
	return r
}
