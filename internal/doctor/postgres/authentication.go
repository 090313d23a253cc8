package postgres

import (
	"context"
	"crypto/hmac"
	"crypto/md5" //nolint:gosec // the form of PostgreSQL's old hashes
	"crypto/pbkdf2"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"pgwicket/internal/doctor/report"
)

// newPassword is the command that sets a password of the role rolname. psql has no escapes
// in the arguments of its commands, so other names get a statement.
const newPassword = `case when rolname ~ '[[:cntrl:]]' then format('alter role %I password null;', rolname) else format('\password %I', rolname) end`

// authenticationChecks are those of passwords and of parameters of authentication. The
// lines of pg_hba.conf are examined by internal/doctor.
func authenticationChecks() []check {
	minimum := settingCheck{
		about: about{"scram_iterations", report.Authentication, "", "The fewer iterations, the faster a stolen verifier gives the password."},
		name:  "scram_iterations", status: report.Warn, since: 16, want: "4096",
		wrong: func(_ *server, v string) string {
			if n, err := strconv.Atoi(v); err == nil && n < minIterations {
				return "is " + v + ", and the default is 4096"
			}
			return ""
		},
	}
	return []check{
		funcCheck{about{"password_guessed", report.Authentication, "5.6", "The first thing that is tried against a login is its name."}, checkGuesses},
		funcCheck{about{"password_reused", report.Authentication, "5.6", "Anybody who knows the password of one of the roles knows it of all."}, checkReuse},
		minimum,
		listCheck{
			about:  about{"password_iterations", report.Authentication, "", "The fewer iterations, the faster a stolen verifier gives the password."},
			status: report.Warn,
			sql: `select quote_ident(rolname), ` + newPassword + ` from pg_authid
				where rolcanlogin and substring(rolpassword from '^SCRAM-SHA-256\$(\d+):')::int < ` + strconv.Itoa(minIterations) + ` order by 1`,
			reason: "passwords that are stored with less than 4096 iterations: {}",
			passed: "no password is stored with less than 4096 iterations",
		},
		listCheck{
			about:  about{"role_expired", report.Authentication, "4.4", "Only passwords end on that date: with peer, cert or another method the role still logs in."},
			status: report.Note,
			sql:    `select quote_ident(rolname), format('alter role %I nologin;', rolname) from pg_roles where rolcanlogin and not rolsuper and rolvaliduntil < now() order by 1`,
			reason: "roles whose password has expired, but that can log in: {}",
			passed: "no role with an expired password can log in",
		},
		settingCheck{
			about: about{"authentication_timeout", report.Authentication, "6.4", "Anybody who does not log in keeps a process of PostgreSQL for so long."},
			name:  "authentication_timeout", status: report.Note, want: "'30s'",
			wrong: func(_ *server, v string) string {
				if n, err := strconv.Atoi(v); err == nil && n > 60 {
					return "is " + v + " s, and the default is 60 s"
				}
				return ""
			},
		},
		funcCheck{about{"auth_delay", report.Authentication, "", "Without a delay a password is guessed as fast as PostgreSQL answers."}, checkAuthDelay},
		funcCheck{about{"password_complexity", report.Authentication, "5.6", "PostgreSQL itself takes every password."}, checkComplexity},
		listCheck{
			about:   about{"connection_limit", report.Authentication, "5.5", "One account that runs wild takes all connections."},
			stopped: func(o Options) string { return o.GateLimits },
			status:  report.Note,
			sql:     `select quote_ident(rolname), format('alter role %I connection limit %s;', rolname, greatest(50, 2 * (select count(*) from pg_stat_activity where usesysid = r.oid))) from pg_roles r where rolcanlogin and rolconnlimit = -1 and not rolsuper order by 1`,
			reason:  "login roles without a connection limit: {}",
			passed:  "every login role has a connection limit, superusers aside",
		},
	}
}

// minIterations is PostgreSQL's default (src/include/common/scram-common.h).
const minIterations = 4096

// verifier is the stored password of a role.
type verifier struct {
	role, text string
	reset      string // the statement that sets another
}

func (s *server) loadVerifiers(ctx context.Context, conn *pgconn.PgConn) {
	rows, err := Query(ctx, conn, `select rolname, rolpassword, `+newPassword+` from pg_authid where rolcanlogin and rolpassword is not null order by 1`)
	if err != nil {
		s.verifiersErr = Reason(err)
		return
	}
	for _, r := range rows {
		s.verifiers = append(s.verifiers, verifier{r[0], r[1], safeStatements(r[2])})
	}
}

func (s *server) skipVerifiers() []report.Finding {
	return []report.Finding{report.New(report.Skip, "pg_authid", s.verifiersErr, "connect as a superuser")}
}

// guesses are the passwords that are tried for a role.
func guesses(role string) []string {
	return []string{role, "", "postgres", "password", role + "123", "123456", "changeme", "secret", "admin"}
}

// The bounds of guessing: a SCRAM verifier takes a millisecond for each guess.
const (
	guessTime     = 3 * time.Second
	maxIterations = 20000
)

// startGuessing guesses while the server answers queries.
func (s *server) startGuessing(ctx context.Context) {
	s.guesses = make(chan []report.Finding, 1)
	go func() { s.guesses <- s.guess(ctx) }()
}

func checkGuesses(_ context.Context, s *server) []report.Finding { return <-s.guesses }

// guess tries a few passwords against the verifiers, the likeliest for all roles first.
func (s *server) guess(ctx context.Context) []report.Finding {
	if s.verifiersErr != "" {
		return s.skipVerifiers()
	}
	var objects []report.Object
	guessed := make(map[string]bool)
	end, tried := time.Now().Add(guessTime), 0
	for i := range guesses("") {
		for _, v := range s.verifiers {
			if time.Now().After(end) || ctx.Err() != nil {
				break
			}
			if !guessed[v.role] && v.matches(guesses(v.role)[i]) {
				guessed[v.role] = true
				objects = append(objects, report.Object{Name: quoted(v.role), Fix: v.reset})
			}
			tried++
		}
	}
	if len(objects) == 0 {
		return []report.Finding{report.Passed("%d guesses at %d passwords failed", tried, len(s.verifiers))}
	}
	sortObjects(objects)
	return []report.Finding{report.NewList(report.Fail, report.List{Reason: "the password is the name of the role, or one of the first that anybody tries: {}", Objects: objects})}
}

// matches reports whether a password fits. A verifier with more than maxIterations
// is not tried.
func (v verifier) matches(password string) bool {
	if hash, ok := strings.CutPrefix(v.text, "md5"); ok {
		sum := md5.Sum([]byte(password + v.role)) //nolint:gosec // as above
		return hash == hex.EncodeToString(sum[:])
	}
	// SCRAM-SHA-256$<iterations>:<salt>$<stored key>:<server key>, RFC 5803.
	parts := strings.FieldsFunc(strings.TrimPrefix(v.text, "SCRAM-SHA-256$"), func(r rune) bool { return r == ':' || r == '$' })
	if !strings.HasPrefix(v.text, "SCRAM-SHA-256$") || len(parts) != 4 {
		return false
	}
	iterations, err := strconv.Atoi(parts[0])
	salt, err1 := base64.StdEncoding.DecodeString(parts[1])
	stored, err2 := base64.StdEncoding.DecodeString(parts[2])
	if err != nil || err1 != nil || err2 != nil || iterations < 1 || iterations > maxIterations {
		return false
	}
	salted, err := pbkdf2.Key(sha256.New, password, salt, iterations, sha256.Size)
	if err != nil {
		return false
	}
	mac := hmac.New(sha256.New, salted)
	mac.Write([]byte("Client Key"))
	key := sha256.Sum256(mac.Sum(nil))
	return subtle.ConstantTimeCompare(key[:], stored) == 1
}

// checkReuse finds roles with the same verifier: salts are random, so it was copied.
func checkReuse(_ context.Context, s *server) []report.Finding {
	if s.verifiersErr != "" {
		return s.skipVerifiers()
	}
	by := make(map[string]int)
	for _, v := range s.verifiers {
		by[v.text]++
	}
	var objects []report.Object
	for _, v := range s.verifiers {
		if by[v.text] > 1 {
			objects = append(objects, report.Object{Name: quoted(v.role), Fix: v.reset})
		}
	}
	if objects == nil {
		return []report.Finding{report.Passed("no verifier is that of two roles")}
	}
	return []report.Finding{report.NewList(report.Warn, report.List{Reason: "roles with the verifier of another role: {}", Objects: objects})}
}

func sortObjects(objects []report.Object) {
	slices.SortFunc(objects, func(a, b report.Object) int { return strings.Compare(a.Name, b.Name) })
}

func checkAuthDelay(_ context.Context, s *server) []report.Finding {
	v, known := s.value("shared_preload_libraries")
	switch {
	case s.GateDelays != "":
		return []report.Finding{report.Passed("%s", s.GateDelays)}
	case !known:
		return []report.Finding{report.New(report.Skip, "shared_preload_libraries", "this role may not read it", "grant pg_read_all_settings, or connect as a superuser")}
	case s.preloads("auth_delay") || s.preloads("credcheck"):
		return []report.Finding{report.Passed("shared_preload_libraries is %s", display(v))}
	case !s.listens():
		return []report.Finding{report.Passed("PostgreSQL listens on no TCP address")}
	}
	return []report.Finding{report.New(report.Note, "shared_preload_libraries", "nothing delays those who guess passwords", s.preload("auth_delay")+"\n-- then alter system set auth_delay.milliseconds = 1000;")}
}

func (s *server) listens() bool {
	v, known := s.value("listen_addresses")
	return !known || v != ""
}

func checkComplexity(_ context.Context, s *server) []report.Finding {
	v, known := s.value("shared_preload_libraries")
	switch {
	case !known:
		return []report.Finding{report.New(report.Skip, "shared_preload_libraries", "this role may not read it", "grant pg_read_all_settings, or connect as a superuser")}
	case s.preloads("passwordcheck") || s.preloads("credcheck") || s.preloads("passwordpolicy"):
		return []report.Finding{report.Passed("shared_preload_libraries is %s", display(v))}
	case s.verifiersErr == "" && len(s.verifiers) == 0:
		return []report.Finding{report.Passed("no role has a password")}
	}
	return []report.Finding{report.New(report.Note, "shared_preload_libraries", fmt.Sprintf("nothing checks new passwords (%s)", display(v)), s.preload("passwordcheck"))}
}
