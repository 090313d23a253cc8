package doctor

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"pgwicket/internal/doctor/postgres"
	"pgwicket/internal/pgwire"
	"pgwicket/tlsconfig"
)

// SessionOptions say how to open a session through the gate.
type SessionOptions struct {
	User     string           // empty: as for the examination
	Database string           // likewise
	Cert     *tls.Certificate // nil: none is sent
}

// sessionTrial is a session that was tried through a listener.
type sessionTrial struct {
	user, database string
	took           time.Duration
	err            error // nil: PostgreSQL was ready
	sentCert       bool
	needsCert      bool // by tls.client_cert
}

// trySession opens one session through a listener, as a client with libpq's parameters,
// until PostgreSQL is ready for a query, and ends it.
func (l *listenerScan) trySession(ctx context.Context, o Options) {
	t := &sessionTrial{sentCert: o.Session.Cert != nil, needsCert: o.Config.TLS.ClientCert() == tlsconfig.ClientCertRequire}
	l.session = t
	cfg, err := t.config(o, l.target())
	if err != nil {
		t.err = err
		return
	}
	began := time.Now()
	conn, err := pgconn.ConnectConfig(ctx, cfg)
	if t.took = time.Since(began); err != nil {
		t.err = err
		return
	}
	_ = conn.Close(ctx)
}

func (t *sessionTrial) config(o Options, target string) (*pgconn.Config, error) {
	host, port, err := net.SplitHostPort(target)
	if err != nil {
		return nil, err
	}
	// TLS is set below. The files of this account, which pgconn would read in every mode, are for its own servers.
	words := map[string]string{"host": host, "port": port, "sslmode": "disable"}
	for word, value := range map[string]string{"user": o.User, "dbname": o.Database} {
		words[word] = value
	}
	if o.Session.User != "" {
		words["user"], words["dbname"] = o.Session.User, o.Session.User
	}
	if o.Session.Database != "" {
		words["dbname"] = o.Session.Database
	}
	cfg, err := pgconn.ParseConfig(conninfo(words) + " sslrootcert='' sslcert='' sslkey=''")
	if err != nil {
		return nil, err
	}
	t.user, t.database = cfg.User, cfg.Database
	cfg.ConnectTimeout = timeout
	cfg.RuntimeParams = map[string]string{"application_name": "pgwicket doctor"}
	cfg.Fallbacks = nil
	cfg.TLSConfig = &tls.Config{
		InsecureSkipVerify: true, // served_certificate compares it with the file
		NextProtos:         []string{"postgresql"},
		MinVersion:         tls.VersionTLS12,
	}
	if o.Session.Cert != nil {
		cfg.TLSConfig.Certificates = []tls.Certificate{*o.Session.Cert}
	}
	return cfg, nil
}

// checkSession says whether a client gets as far as a query. What only the right
// certificate, role or password would show is skipped, with what is missing.
func (l listenerScan) checkSession() []Finding {
	t := l.session
	if t == nil {
		return nil // another check has said why nothing listens
	}
	var refusal *pgconn.PgError
	switch {
	case t.err == nil:
		return []Finding{pass("PostgreSQL was ready for a session of %q in %q after %v", t.user, t.database, t.took.Round(time.Millisecond))}
	case !errors.As(t.err, &refusal):
		return []Finding{finding(Fail, "listen", "a session of "+t.user+" could not be opened: "+postgres.Reason(t.err), `look at the log of the gate`)}
	case t.needsCert && !t.sentCert && refusal.Code == pgwire.SQLStateInvalidAuthorization:
		return []Finding{{Status: Skip, Reason: "no session was tried: the gate requires a client certificate", Fix: "name one with --session-cert and --session-key, and its role with --session-user"}}
	case strings.HasPrefix(refusal.Code, "28"), refusal.Code == "3D000": // no such database
		return []Finding{{
			Status: Skip, Reason: fmt.Sprintf("the session of %q in %q was refused: %s", t.user, t.database, refusal.Message),
			Fix: "name a role that may come in with --session-user, its database with --session-dbname, and its password with PGPASSWORD or .pgpass; pgwicket explain shows the gate's decision",
		}}
	case pgwire.Unavailable(refusal.Code):
		return []Finding{finding(Fail, "backend.host", "no session can start: "+refusal.Message, "start PostgreSQL, or let the account of the gate reach it; the reason is in the log of the gate, and on its status page")}
	}
	return []Finding{finding(Warn, "listen", fmt.Sprintf("the session of %q was refused: %s (%s)", t.user, refusal.Message, refusal.Code), "look at the log of the gate")}
}
