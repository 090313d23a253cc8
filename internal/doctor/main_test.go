package doctor

import (
	"os"
	"strings"
	"testing"
)

// TestMain takes away the PG variables, which pgconn reads as libpq does: a PGSERVICE of
// the account that runs the tests would be looked up.
func TestMain(m *testing.M) {
	for _, variable := range os.Environ() {
		if name, _, _ := strings.Cut(variable, "="); strings.HasPrefix(name, "PG") {
			_ = os.Unsetenv(name)
		}
	}
	os.Exit(m.Run())
}
