package pgtest_test

import (
	"context"
	"os"
	"testing"

	"pgwicket/internal/pgtest"
)

func TestServerListensOnItsSocketOnly(t *testing.T) {
	t.Parallel()
	s, err := pgtest.Start(context.Background(), pgtest.Options{SQL: "create role app login"})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Stop()
	got, err := s.SQL("show listen_addresses; select count(*) from pg_roles where rolname = 'app'")
	if err != nil || got != "\n1" && got != "1" {
		t.Fatalf("listen_addresses and role: %q, %v", got, err)
	}
	if st, err := os.Stat(s.SocketDir); err != nil || st.Mode().Perm() != 0o700 {
		t.Fatalf("socket directory: %v, %v; want mode 0700", st.Mode(), err)
	}
	s.Stop()
	if _, err := os.Stat(s.SocketDir); !os.IsNotExist(err) {
		t.Fatalf("after Stop the socket directory is still there: %v", err)
	}
}
