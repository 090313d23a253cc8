package passphrase

import (
	"strings"
	"testing"
)

func TestRun(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ line, want, err string }{
		{"printf s3cret", "s3cret", ""},
		{"echo s3cret", "s3cret", ""},
		{`printf 's3cret\n\n'`, "s3cret\n", ""},
		{`printf 's3cret\r\n'`, "s3cret", ""},
		{`printf ' s3 cret '`, " s3 cret ", ""},
		{"cat; echo s3cret", "s3cret", ""}, // standard input is empty
		{`echo "$KEY $HOME"`, "server.key /home/somebody", ""},
		{"(sleep 10 & echo s3cret)", "s3cret", ""},
		{"head -c 1024 /dev/zero | tr '\\0' x", strings.Repeat("x", 1024), ""},
		{"head -c 1025 /dev/zero | tr '\\0' x", "", "more than 1024 bytes"},
		{"head -c 9000000 /dev/zero | tr '\\0' x", "", "more than 1024 bytes"},
		{"true", "", "printed no passphrase"},
		{"echo", "", "printed no passphrase"},
		{"echo locked >&2", "", `printed no passphrase on its standard output, saying "locked"`},
		{"echo s3cret; exit 3", "", "exit status 3"},
		{"echo the vault is; echo locked >&2; exit 1", "", `exit status 1, saying "locked"`},
		{"echo s3cret; printf 'a\\nb\\001' >&2; exit 1", "", `saying "a b\x01"`},
		{"set -x; echo s3cret; exit 1", "", "exit status 1"},
		{"head -c 9000 /dev/zero | tr '\\0' x >&2; exit 1", "", strings.Repeat("x", stderrLimit) + `"`},
		{"kill -TERM $$", "", "signal: terminated"},
	} {
		got, err := Command{Line: c.line, Env: []string{"KEY=server.key", "HOME=/home/somebody"}, Timeout: Timeout}.Run()
		switch {
		case c.err == "" && (err != nil || string(got) != c.want):
			t.Errorf("%s: %q, %v, want %q", c.line, got, err, c.want)
		case c.err == "":
		case err == nil || !strings.Contains(err.Error(), c.err):
			t.Errorf("%s: %q, %v, want an error with %q", c.line, got, err, c.err)
		case strings.Contains(err.Error(), "s3cret") || strings.Contains(err.Error(), "\n"):
			t.Errorf("%s: the error is %v", c.line, err)
		}
	}
}
