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
	for name, mode := range map[string]os.FileMode{"good": 0o700, "group": 0o750, "group-writes": 0o770, "all-read": 0o755, "wide": 0o777} {
		if err := os.Mkdir(s.path(name), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(s.path(name), mode); err != nil {
			t.Fatal(err)
		}
	}
	s.write(t, "plain-file", nil, 0o600)
	for value, want := range map[string]string{
		`""`:           "",
		"good":         "",
		"group":        "",
		"group-writes": "can be written by other accounts (mode 0770), which could remove locks; run chmod 0700",
		"all-read":     "can be read by every account (mode 0755); run chmod 0700",
		"wide":         "warning: state_dir: ",
		"missing":      "state_dir: stat ",
		"plain-file":   "is not a directory",
		`"@hidden"`:    "is not the path of a directory",
		"[good]":       "expected text, found a list",
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

// The file of the audit trail need not be there; its directory must, and nobody else may
// write to it.
func TestAuditFile(t *testing.T) {
	s := newSite(t)
	s.write(t, "mine", nil, 0o600)
	s.write(t, "shared", nil, 0o600)
	if err := os.Chmod(s.path("shared"), 0o666); err != nil {
		t.Fatal(err)
	}
	for value, want := range map[string]string{
		`{}`:                           "",
		`{file: ""}`:                   "",
		`{file: new}`:                  "",
		`{file: mine, required: true}`: "",
		`{file: shared}`:               "warning: audit.file: ",
		`{file: missing/audit.log}`:    "make the directory",
		`{file: mine/audit.log}`:       "audit.file: ",
		`{file: .}`:                    "is not a regular file",
		`{file: new/}`:                 "is not the path of a file",
		`{required: true}`:             "audit.required: has no effect without audit.file",
		`{file: new, required: yes}`:   "expected true or false",
		`{path: new}`:                  `unknown key "path"`,
	} {
		cfg, problems := s.loadWith(t, small+"audit: "+value+"\n", nil)
		i := slices.IndexFunc(problems, func(p string) bool {
			return strings.Contains(p, "audit.") || strings.Contains(p, "expected") || strings.Contains(p, "unknown")
		})
		switch {
		case want == "" && (i >= 0 || cfg == nil):
			t.Errorf("%s: %q", value, problems)
		case want != "" && (i < 0 || !strings.Contains(problems[i], want)):
			t.Errorf("%s: %q, want %s", value, problems, want)
		}
	}
}
