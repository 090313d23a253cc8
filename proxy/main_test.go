package proxy_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"pgwicket/internal/pgtest"
)

// TestMain stops what realPostgres has started, and then holds the whole
// package to rule 7 of the house: every goroutine has an owner that waits for
// it, so none is left when the last test is done.
func TestMain(m *testing.M) {
	for _, variable := range os.Environ() { // pgx reads them as libpq does
		if name, _, _ := strings.Cut(variable, "="); strings.HasPrefix(name, "PG") && !strings.HasPrefix(name, "PGWICKET") {
			_ = os.Unsetenv(name)
		}
	}
	code := m.Run()
	if shared.server != nil {
		shared.server.Stop()
	}
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, "goroutines left after the last test:", err)
		code = 1
	}
	os.Exit(code)
}

// shared is one PostgreSQL for all the tests that do not change it: initdb
// takes longer than all of them.
var shared struct {
	once   sync.Once
	server *pgtest.Server
	err    error
}

// secret is the password of the role "scram".
const secret = "correct horse"

// realOptions offer two roles besides the superuser: "app" is trusted, "scram"
// must log in with secret.
var realOptions = pgtest.Options{
	HBA: "local all scram scram-sha-256\nlocal all all trust",
	SQL: `create role app login; grant all on schema public to app;
		create role scram login password '` + secret + `';`,
}

// realPostgres returns the shared PostgreSQL, started by the first test that
// wants one. Nobody may stop it or change its roles; a test that must do so
// starts its own.
func realPostgres(t *testing.T) *pgtest.Server {
	t.Helper()
	shared.once.Do(func() { shared.server, shared.err = pgtest.Start(context.Background(), realOptions) })
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return shared.server
}
