package kubernetes_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestMain is kubectl or helm where the quick start calls one of them: see quickstart_test.go.
func TestMain(m *testing.M) {
	switch filepath.Base(os.Args[0]) {
	case "kubectl":
		os.Exit(told(kubectl(os.Args[1:])))
	case "helm":
		os.Exit(told(helm(os.Args[1:])))
	}
	os.Exit(withPgwicket(m))
}

func told(err error) int {
	if err == nil {
		return 0
	}
	fmt.Fprintln(os.Stderr, err)
	return 1
}

const binaryVariable = "GATE_UNDER_TEST"

// withPgwicket builds the tree's own binary, where the account of the container can run it.
func withPgwicket(m *testing.M) int {
	dir, err := os.MkdirTemp("", "kubernetes")
	if err != nil {
		return told(err)
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		return told(err)
	}
	binary := filepath.Join(dir, "pgwicket")
	cmd := exec.Command("go", "build", "-buildvcs=false", "-o", binary, "./cmd/pgwicket")
	cmd.Dir = "../../.."
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return told(fmt.Errorf("%w\n%s", err, out))
	}
	os.Setenv(binaryVariable, binary)
	return m.Run()
}

func pgwicket(t *testing.T) string {
	t.Helper()
	return os.Getenv(binaryVariable)
}
