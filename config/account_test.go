package config

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// A key is judged by the account in user: where there is none, this comes first.
func TestAccountComesFirst(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can give a key away")
	}
	s := newSite(t)
	if err := os.Chown(s.path("server.key"), 4711, 4711); err != nil {
		t.Fatal(err)
	}
	load := func(user string) (texts []string) {
		path := s.write(t, "pgwicket.yaml", append(testdata(t, s, "defaults.good.yaml"), "\nuser: "+user+"\n"...), 0o600)
		_, problems := Load(path, nil, nil, time.Now())
		for _, p := range problems {
			texts = append(texts, p.String())
		}
		return texts
	}
	problems := load("nobdy")
	if len(problems) < 2 || !strings.Contains(problems[0], `user: there is no account "nobdy" in /etc/passwd; make one`) || !strings.Contains(problems[1], "tls.key_file: ") {
		t.Errorf("%s", strings.Join(problems, "\n"))
	}
	// An account that is there causes nothing.
	if problems = load("daemon"); len(problems) != 1 || !strings.Contains(problems[0], "tls.key_file: ") {
		t.Errorf("%s", strings.Join(problems, "\n"))
	}
}

func TestClosed(t *testing.T) {
	t.Parallel()
	_, err := os.Open(t.TempDir() + "/none")
	for _, c := range []struct {
		p    Problem
		want bool
	}{
		{Problem{Text: "cannot read \"server.key\": permission denied"}, true},
		{Problem{Text: "cannot read \"server.key\": permission denied", Warning: true}, false},
		{Problem{Text: fmt.Sprint(err)}, false},
	} {
		if got := closed(c.p); got != c.want {
			t.Errorf("%+v: %v", c.p, got)
		}
	}
}
