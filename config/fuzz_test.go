package config

import (
	"os"
	"path/filepath"
	"testing"
	"unicode/utf8"
)

// Whatever the file holds, parse neither panics nor hangs, says what is wrong in whole lines about lines that are
// there, and lets no number through that is outside of what it promises.
func FuzzParse(f *testing.F) {
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range append(files, "../config.example.yaml") {
		text, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		got, lines, problems := parse(text)
		for _, p := range problems {
			if p.Line < 1 || p.Warning || p.Key != "" || p.File != "" {
				t.Errorf("%+v", p)
			}
			if control.MatchString(p.Text) || !utf8.ValidString(p.Text) || p.Text == "" {
				t.Errorf("not a line of text: %q", p.Text)
			}
		}
		for key, line := range lines {
			if line < 1 {
				t.Errorf("%q stands in line %d", key, line)
			}
		}
		if len(problems) > 0 {
			return
		}
		for _, d := range []duration{got.Backend.ConnectTimeout, got.Limits.StartupTimeout, got.Limits.TCPUserTimeout, got.Limits.DrainTimeout, duration(got.TLS.CRLGrace)} {
			if d < 0 {
				t.Errorf("duration %d", d)
			}
		}
		if c := got.Limits.MaxCancelRequests; c < 0 || c > 1<<31-1 {
			t.Errorf("count %d", c)
		}
	})
}
