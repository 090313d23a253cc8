package pgwire

// The SQLSTATEs that the gate sends or looks for, with the name that
// PostgreSQL's src/backend/utils/errcodes.txt gives each.
const (
	// SQLStateProtocolViolation is protocol_violation: a packet that cannot be
	// understood, or that PostgreSQL might understand differently.
	SQLStateProtocolViolation = "08P01"

	// SQLStateFeatureNotSupported is feature_not_supported: a protocol version or
	// a request that is not supported.
	SQLStateFeatureNotSupported = "0A000"

	// SQLStateInvalidParameterValue is invalid_parameter_value.
	SQLStateInvalidParameterValue = "22023"

	// SQLStateInvalidAuthorization is invalid_authorization_specification.
	// PostgreSQL sends it where pg_hba.conf or the role does not admit a connection.
	SQLStateInvalidAuthorization = "28000"

	// SQLStateInvalidPassword is invalid_password: PostgreSQL's answer to a wrong
	// password.
	SQLStateInvalidPassword = "28P01"

	// SQLStateInsufficientPrivilege is insufficient_privilege.
	SQLStateInsufficientPrivilege = "42501"

	// SQLStateTooManyConnections is too_many_connections.
	SQLStateTooManyConnections = "53300"

	// SQLStateAdminShutdown is admin_shutdown: a session is terminated on an
	// administrator's command.
	SQLStateAdminShutdown = "57P01"

	// SQLStateCannotConnectNow is cannot_connect_now. It is the only SQLSTATE after
	// which libpq tries the next of several hosts (PQconnectPoll in fe-connect.c).
	SQLStateCannotConnectNow = "57P03"

	// SQLStateQueryCanceled is query_canceled, which PostgreSQL sends where an
	// authentication takes too long, too (ProcessInterrupts in postgres.c).
	SQLStateQueryCanceled = "57014"

	// SQLStateIdleSessionTimeout is idle_session_timeout.
	SQLStateIdleSessionTimeout = "57P05"

	// SQLStateInternalError is internal_error.
	SQLStateInternalError = "XX000"
)

// The SQLSTATEs that a Tracker looks for.
const (
	sqlStateUndefinedStatement = "26000" // undefined_pstatement
	sqlStateUndefinedCursor    = "34000" // undefined_cursor
	sqlStateCrashShutdown      = "57P02" // crash_shutdown
)

// Unavailable reports whether an SQLSTATE before the first ReadyForQuery means that
// PostgreSQL takes no sessions now: it starts, stops, recovers or has crashed.
func Unavailable(sqlstate string) bool {
	switch sqlstate {
	case SQLStateAdminShutdown, sqlStateCrashShutdown, SQLStateCannotConnectNow:
		return true
	}
	return false
}
