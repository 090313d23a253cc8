// Package test holds the layering of this module: its programs use the product as its users do.
package test

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// TestLayers lists what the packages of this module import. Of the product they may use the helpers of its tests and the
// memory that check computes and the channel of an upgrade, and the programs do not import each other.
func TestLayers(t *testing.T) {
	cmd := exec.Command("go", "list", "-f", `{{$p := .ImportPath}}{{range .Imports}}{{$p}} {{.}}{{"\n"}}{{end}}`, "./...")
	cmd.Env = append(os.Environ(), "GOFLAGS=")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	may := []string{
		"pgwicket/internal/budget", "pgwicket/internal/handover", "pgwicket/internal/pgtest", "pgwicket/internal/tlstest",
		"pgwicket/test/gate", "pgwicket/test/harness", "pgwicket/test/wire",
	}
	// owners are the only packages that may import what begins with the key.
	owners := map[string][]string{
		"github.com/jackc/pgx": {"pgwicket/test/interop", "pgwicket/test/siege"}, // as a client
		"testing":              nil,                                              // its flags would be those of the programs
		// as a process that dies in an upgrade
		"pgwicket/internal/handover": {"pgwicket/test/siege"},
	}
	seen := map[string]bool{}
	for line := range strings.Lines(string(out)) {
		from, to, _ := strings.Cut(strings.TrimSpace(line), " ")
		seen[from] = true
		if strings.HasPrefix(to, "pgwicket/") && !slices.Contains(may, to) {
			t.Errorf("%s must not import %s", from, to)
		}
		for what, who := range owners {
			if strings.HasPrefix(to, what) && !slices.Contains(who, from) {
				t.Errorf("%s must not import %s", from, to)
			}
		}
	}
	for _, name := range []string{"bench", "gate", "harness", "interop", "siege", "wire"} {
		if !seen["pgwicket/test/"+name] {
			t.Errorf("there is no package %s", name)
		}
	}
}
