package harness

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
)

// Root returns the directory of the product's go.mod: the working directory or
// one above it.
func Root() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		mod, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && bytes.HasPrefix(mod, []byte("module pgwicket\n")) {
			return dir, nil
		}
		above := filepath.Dir(dir)
		if above == dir {
			return "", errors.New("start it inside the checkout of pgwicket")
		}
		dir = above
	}
}

// Build builds the product's command, or another package of the product or of
// the module in test, in its own module and as releases are built. env is added
// to the environment.
func Build(ctx context.Context, pkg, to string, env []string, flags ...string) error {
	root, err := Root()
	if err != nil {
		return err
	}
	if strings.HasPrefix(pkg, "pgwicket/test/") {
		root = filepath.Join(root, "test")
	}
	argv := append([]string{"go", "build", "-trimpath", "-o", to}, flags...)
	_, err = Output(ctx, root, append(append(os.Environ(), "CGO_ENABLED=0"), env...), append(argv, pkg)...)
	return err
}
