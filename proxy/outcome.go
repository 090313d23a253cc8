package proxy

import (
	"log/slog"

	"pgwicket/metrics"
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

	// Refused by the TLS handshake.
	NotTLS
	TLSTimeout
	TLSVersion
	TLSCipher
	TLSGroup
	TLSALPN
	TLSRejectedByClient
	TLSFailed

	// Refused for the client's certificate.
	CertMissing
	CertExpired
	CertNotYetValid
	CertRevoked
	CertUnknownCA
	CertWrongPurpose
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
	AccountLimit
	AuthBackoff
	BackendUnavailable
	ShuttingDown
	InternalError

	// Sessions that were admitted, by what ended them.
	AuthenticationFailed
	BackendRefused
	LoginTimeout
	ClientClosed
	ClientLost
	BackendClosed
	BackendLost
	IdleTimeout
	SessionLifetime
	Drained
	DrainTimeout

	// Cancel requests.
	CancelForwarded
	CancelOverLimit
	CancelUnknownKey
	CancelFailed

	outcomeCount
)

type facts struct {
	label    string
	sqlstate string // empty: the client is told nothing
	public   string // what the client is told where the refusal brings no words of its own
	level    slog.Level
	tls      bool // counts as a failed handshake
}

const (
	policy       = "28000" // invalid_authorization_specification
	violation    = "08P01" // protocol_violation
	invalidValue = "22023" // invalid_parameter_value
	privilege    = "42501" // insufficient_privilege
	unsupported  = "0A000" // feature_not_supported
	shutdown     = "57P01" // admin_shutdown
	idleTimeout  = "57P05" // idle_session_timeout
	tooMany      = "53300" // too_many_connections
	noConnect    = "57P03" // cannot_connect_now: the one that moves libpq to its next host
	internal     = "XX000" // internal_error
)

// outcomes says what each outcome means. PostgreSQL's habits decide: policy is
// 28000, an unreadable packet is closed without a word.
var outcomes = [outcomeCount]facts{
	SourceNotAllowed:   {"source_not_allowed", policy, "no pgwicket allowlist entry for this address", slog.LevelWarn, false},
	SourceDenied:       {"source_denied", policy, "no pgwicket allowlist entry for this address", slog.LevelWarn, false},
	ProxyHeaderInvalid: {"proxy_header_invalid", "", "", slog.LevelWarn, false},
	ProxyHeaderRefused: {"proxy_header_refused", "", "", slog.LevelWarn, false},
	Probe:              {"probe", "", "", slog.LevelDebug, false},
	InvalidPacket:      {"invalid_packet", "", "", slog.LevelInfo, false},
	Plaintext:          {"plaintext", policy, "connection requires TLS", slog.LevelWarn, false},
	RepeatedRequest:    {"repeated_request", unsupported, "SSLRequest and GSSENCRequest may be sent once each", slog.LevelWarn, false},
	StartupTimeout:     {"startup_timeout", "", "", slog.LevelInfo, false},
	ClientGone:         {"client_gone", "", "", slog.LevelInfo, false},
	ConnectionLimit:    {"connection_limit", "", "", slog.LevelWarn, false},
	SourceLimit:        {"source_limit", "", "", slog.LevelWarn, false},
	RateLimit:          {"rate_limit", "", "", slog.LevelWarn, false},

	NotTLS:              {"not_tls", "", "", slog.LevelWarn, true},
	TLSTimeout:          {"tls_timeout", "", "", slog.LevelInfo, true},
	TLSVersion:          {"tls_version", policy, "TLS version is not allowed", slog.LevelWarn, true},
	TLSCipher:           {"tls_cipher", policy, "TLS cipher suite is not allowed", slog.LevelWarn, true},
	TLSGroup:            {"tls_group", "", "", slog.LevelWarn, true},
	TLSALPN:             {"tls_alpn", "", "", slog.LevelWarn, true},
	TLSRejectedByClient: {"tls_rejected_by_client", "", "", slog.LevelWarn, true},
	TLSFailed:           {"tls_failed", "", "", slog.LevelWarn, true},

	CertMissing:      {"certificate_missing", policy, "connection requires a valid client certificate", slog.LevelWarn, true},
	CertExpired:      {"certificate_expired", policy, "client certificate has expired", slog.LevelWarn, true},
	CertNotYetValid:  {"certificate_not_yet_valid", policy, "client certificate is not yet valid", slog.LevelWarn, true},
	CertRevoked:      {"certificate_revoked", policy, "client certificate has been revoked", slog.LevelWarn, true},
	CertUnknownCA:    {"certificate_unknown_ca", policy, "client certificate is signed by an unknown authority", slog.LevelWarn, true},
	CertWrongPurpose: {"certificate_wrong_purpose", policy, "client certificate is not meant for clients", slog.LevelWarn, true},
	CertInvalid:      {"certificate_invalid", policy, "client certificate is not valid", slog.LevelWarn, true},
	CRLMissing:       {"crl_missing", policy, "client certificate could not be checked for revocation", slog.LevelError, true},
	CRLStale:         {"crl_stale", policy, "client certificate could not be checked for revocation", slog.LevelError, true},

	ProtocolViolation:   {"protocol_violation", violation, "invalid startup packet", slog.LevelWarn, false},
	UnsupportedProtocol: {"unsupported_protocol", unsupported, "unsupported frontend protocol", slog.LevelWarn, false},
	NoUser:              {"no_user", policy, "no PostgreSQL user name specified in startup packet", slog.LevelWarn, false},
	ReservedSetting:     {"reserved_setting", privilege, "settings that begin with pgwicket. are not a client's to send", slog.LevelWarn, false},
	InvalidParameter:    {"invalid_parameter", invalidValue, "invalid value for a parameter", slog.LevelWarn, false},
	NoRule:              {"no_rule", policy, "no pgwicket rule for this session", slog.LevelWarn, false},
	RuleRejected:        {"rule_rejected", policy, "pgwicket rejects this session", slog.LevelWarn, false},
	AccountLimit:        {"account_limit", tooMany, "too many connections for this role and database", slog.LevelWarn, false},
	AuthBackoff:         {"auth_backoff", policy, "too many failed authentications; try again later", slog.LevelWarn, false},
	BackendUnavailable:  {"backend_unavailable", noConnect, "the database cannot be reached", slog.LevelError, false},
	ShuttingDown:        {"shutting_down", noConnect, "the gate is shutting down", slog.LevelInfo, false},
	InternalError:       {"internal_error", internal, "internal error", slog.LevelError, false},

	AuthenticationFailed: {"authentication_failed", "", "", slog.LevelWarn, false},
	BackendRefused:       {"backend_refused", "", "", slog.LevelWarn, false},
	LoginTimeout:         {"login_timeout", "", "", slog.LevelWarn, false},
	ClientClosed:         {"client_closed", "", "", slog.LevelInfo, false},
	ClientLost:           {"client_lost", "", "", slog.LevelInfo, false},
	BackendClosed:        {"backend_closed", "", "", slog.LevelInfo, false},
	BackendLost:          {"backend_lost", "", "", slog.LevelInfo, false},
	IdleTimeout:          {"idle_timeout", "", "", slog.LevelInfo, false},
	SessionLifetime:      {"session_lifetime", "", "", slog.LevelInfo, false},
	Drained:              {"drained", "", "", slog.LevelInfo, false},
	DrainTimeout:         {"drain_timeout", "", "", slog.LevelWarn, false},

	CancelForwarded:  {"forwarded", "", "", slog.LevelInfo, false},
	CancelOverLimit:  {"over_limit", "", "", slog.LevelWarn, false},
	CancelUnknownKey: {"unknown_key", "", "", slog.LevelWarn, false},
	CancelFailed:     {"failed", "", "", slog.LevelWarn, false},
}

// String returns the outcome as metrics and logs name it.
func (o Outcome) String() string { return outcomes[o].label }

// expected returns what each counter may have to count.
func expected() (e metrics.Outcomes) {
	for o := range outcomeCount {
		f := outcomes[o]
		switch {
		case o >= CancelForwarded:
			e.Cancelled = append(e.Cancelled, f.label)
		case o >= AuthenticationFailed:
			e.Ended = append(e.Ended, f.label)
		default:
			e.Refused = append(e.Refused, f.label)
			if f.tls {
				e.Handshakes = append(e.Handshakes, f.label)
			}
			if o.mayEnd() {
				e.Ended = append(e.Ended, f.label)
			}
		}
	}
	return e
}

// mayEnd says of an outcome of newcomers that a recheck may end a live session
// with it.
func (o Outcome) mayEnd() bool {
	switch o {
	case SourceNotAllowed, SourceDenied, ProxyHeaderRefused, TLSVersion, TLSCipher, NoRule, RuleRejected, InternalError:
		return true
	}
	return CertMissing <= o && o <= CRLStale
}

// A Refusal is why a connection is not let in.
type Refusal struct {
	Outcome Outcome
	Public  string // what the client is told; empty: the words of the outcome
	Detail  string // what the log says besides; may name what the client must not learn
}

func (r *Refusal) Error() string {
	if r.Detail == "" {
		return r.Outcome.String()
	}
	return r.Outcome.String() + ": " + r.Detail
}

func refuse(o Outcome, detail string) error { return &Refusal{Outcome: o, Detail: detail} }

// Message returns the FATAL that tells the client of r; an empty SQLSTATE
// means that it is told nothing.
func (r *Refusal) Message() (sqlstate, text string) {
	f := outcomes[r.Outcome]
	if r.Public != "" {
		return f.sqlstate, r.Public
	}
	return f.sqlstate, f.public
}
