//go:build unix

package sandbox

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"pgwicket/config"
)

// tree makes files and links in a temporary directory, whose path has no links.
func tree(t *testing.T, files []string, links map[string]string) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, target := range links {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(target, path); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// The directories of the files, of what links lead to, and around the ..data link of
// Kubernetes stay readable; backends are not read.
func TestReadable(t *testing.T) {
	t.Parallel()
	dir := tree(t, []string{"etc/pgwicket.yaml", "live/1.crt", "secret/..1/tls.key", "lists/one.crl"},
		map[string]string{"etc/server.crt": "../live/1.crt", "secret/..data": "..1", "secret/tls.key": "..data/tls.key"})
	names := []config.Name{{Path: filepath.Join(dir, "run"), Backend: true}}
	for _, name := range []string{"etc/pgwicket.yaml", "etc/server.crt", "secret/tls.key", "lists"} {
		names = append(names, config.Name{Path: filepath.Join(dir, name)})
	}
	var want []string
	for _, name := range []string{"etc", "lists", "live", "secret", "secret/..1"} {
		want = append(want, filepath.Join(dir, name))
	}
	if got := readable(names); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// A sandbox leaves the files below its directories, and no others.
func TestAllows(t *testing.T) {
	t.Parallel()
	dir := tree(t, []string{"etc/ca.crt", "other/ca.crt"}, map[string]string{"etc/link.crt": "../other/ca.crt"})
	s := &Sandbox{dirs: directories([]string{filepath.Join(dir, "etc")}), sockets: directories([]string{filepath.Join(dir, "etc")}), ports: []uint16{5432}}
	for name, want := range map[string]bool{"etc/ca.crt": true, "etc/link.crt": false, "other/ca.crt": false, "etc": false, "missing": true} {
		if got := s.allows(config.Name{Path: filepath.Join(dir, name)}); got != want {
			t.Errorf("%s: %t, want %t", name, got, want)
		}
	}
	for path, want := range map[string]bool{
		filepath.Join(dir, "etc/run"): true, filepath.Join(dir, "other"): false, "@abstract": false,
		"192.0.2.1:5432": true, "192.0.2.1:5433": false, "db.example:5432": false,
	} {
		if got := s.allows(config.Name{Path: path, Backend: true}); got != want {
			t.Errorf("backend %s: %t, want %t", path, got, want)
		}
	}
	if problems := s.Explain(nil, "pgwicket.yaml", []config.Name{{Key: "tls.ca_file", Line: 3, Path: filepath.Join(dir, "other/ca.crt")}}); len(problems) != 1 || problems[0].Line != 3 || problems[0].Warning {
		t.Errorf("%+v", problems)
	}
}
