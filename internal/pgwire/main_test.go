package pgwire_test

import (
	"os"
	"strings"
	"testing"
)

// TestMain takes away the PG variables of the account that runs the tests, which pgx reads as
// libpq does: it would look a PGSERVICE up.
func TestMain(m *testing.M) {
	for _, variable := range os.Environ() {
		if name, _, _ := strings.Cut(variable, "="); strings.HasPrefix(name, "PG") && !strings.HasPrefix(name, "PGWICKET") {
			_ = os.Unsetenv(name)
		}
	}
	os.Exit(m.Run())
}
