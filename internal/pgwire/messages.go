package pgwire

// The client's messages, as PostgreSQL's protocol.h names them.
const (
	msgQuery        = 'Q'
	msgFunctionCall = 'F'
	msgSync         = 'S'
	msgParse        = 'P'
	msgBind         = 'B'
	msgDescribe     = 'D'
	msgExecute      = 'E'
	msgClose        = 'C'
	msgFlush        = 'H'
	msgTerminate    = 'X'
)

// Messages of both sides.
const (
	msgCopyData = 'd'
	msgCopyDone = 'c'
	msgCopyFail = 'f' // of the client only
)

// The backend's messages.
const (
	msgAuthentication           = 'R'
	msgBackendKeyData           = 'K'
	msgNegotiateProtocolVersion = 'v'
	msgParameterStatus          = 'S'
	msgNotice                   = 'N'
	msgNotification             = 'A'
	msgErrorResponse            = 'E'
	msgReadyForQuery            = 'Z'
	msgParseComplete            = '1'
	msgBindComplete             = '2'
	msgCloseComplete            = '3'
	msgParameterDescription     = 't'
	msgRowDescription           = 'T'
	msgNoData                   = 'n'
	msgDataRow                  = 'D'
	msgCommandComplete          = 'C'
	msgEmptyQuery               = 'I'
	msgPortalSuspended          = 's'
	msgCopyInResponse           = 'G'
	msgCopyBothResponse         = 'W'
)
