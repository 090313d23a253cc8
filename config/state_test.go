package config

import (
	"os"
	"slices"
	"strings"
	"testing"
)

// The state directory must be there, and only the gate may write to it.
func TestStateDir(t *testing.T) {
	s := newSite(t)
	for name, mode := range map[string]os.FileMode{"good": 0o700, "group": 0o770, "wide": 0o777} {
		if err := os.Mkdir(s.path(name), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(s.path(name), mode); err != nil {
			t.Fatal(err)
		}
	}
	s.write(t, "plain-file", nil, 0o600)
	for value, want := range map[string]string{
		`""`:         "",
		"good":       "",
		"group":      "",
		"wide":       "warning: state_dir: ",
		"missing":    "state_dir: stat ",
		"plain-file": "is not a directory",
		`"@hidden"`:  "is not the path of a directory",
		"[good]":     "expected text, found a list",
	} {
		cfg, problems := s.loadWith(t, small+"state_dir: "+value+"\n", nil)
		i := slices.IndexFunc(problems, func(p string) bool { return strings.Contains(p, "state_dir") || strings.Contains(p, "expected text") })
		switch {
		case want == "" && i >= 0:
			t.Errorf("%s: %s", value, problems[i])
		case want != "" && (i < 0 || !strings.Contains(problems[i], want)):
			t.Errorf("%s: %q, want %s", value, problems, want)
		case want == "" && value != `""` && (cfg == nil || cfg.StateDir != s.path(value)):
			t.Errorf("%s: the directory is %+v", value, cfg)
		}
	}
}
