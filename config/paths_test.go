package config

import (
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"pgwicket/internal/golden"
)

// Every key that is a path is watched, a new one too: the example has them all.
func TestFilesAreAll(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	text := uncommented(t, example(t))
	path := s.write(t, "etc/pgwicket.yaml", []byte(text), 0o600)
	want := []string{path}
	for _, m := range regexp.MustCompile(`\b(?:[a-z_]+_(?:file|dir)|ssl(?:rootcert|crl|crldir|cert|key)): ([^\s,}]+)`).FindAllStringSubmatch(text, -1) {
		// What the gate writes is no reason to reload.
		if file := filepath.Join(s.dir, "etc", m[1]); !slices.Contains(want, file) && !strings.HasPrefix(m[0], "state_dir") {
			want = append(want, file)
		}
	}
	if len(want) < 11 {
		t.Fatalf("only %q", want)
	}
	got := Files(path)
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("these files of config.example.yaml are watched (+) or not (-); see %s:\n%s", recipe, golden.Lists(got, want))
	}
}

func TestFilesOf(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	for _, c := range []struct {
		text string
		want []string
	}{
		{"tls: {cert_file: a.crt, key_file: /b.key, ca_file: \"\", crl_dir: ../lists/}", []string{s.path("a.crt"), "/b.key", filepath.Join(filepath.Dir(s.dir), "lists")}},
		{"tls: {cert_file: a.pem, key_file: a.pem, ca_file: ./a.pem}", []string{s.path("a.pem")}},
		{"tls: {certificates: [{cert_file: a.crt}, {key_file: b.key}]}\nlisten: no matter", nil}, // its form is wrong
		{"tls: {cert_file: a.crt}\nacl: {refusal: unknown}", []string{s.path("a.crt")}},          // so is its meaning, but that does not matter
		{"tls: {cert_file: a.crt", nil},
		{"", nil},
	} {
		path := s.write(t, "pgwicket.yaml", []byte(c.text), 0o600)
		if got := Files(path); !slices.Equal(got, append([]string{path}, c.want...)) {
			t.Errorf("%s: got %q", c.text, got)
		}
	}
	for _, path := range []string{s.path("missing.yaml"), s.dir} {
		if got := Files(path); !slices.Equal(got, []string{path}) {
			t.Errorf("%s: got %q", path, got)
		}
	}
}
