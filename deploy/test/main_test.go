package deploy_test

import (
	"log"
	"os"
	"testing"
)

// built is the directory of what is built once, for all tests.
var built string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "pgwicket-deploy-")
	if err != nil {
		log.Print(err)
		return 1
	}
	defer os.RemoveAll(dir)
	// The accounts that the gate becomes have to get through.
	if err := os.Chmod(dir, 0o755); err != nil {
		log.Print(err)
		return 1
	}
	built = dir
	return m.Run()
}
