//go:build linux

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"pgwicket/test/harness"
)

// reply is what a client says of a command: state is ok or error, code the SQLSTATE if
// the client tells it. A command that takes long may say mark before, and waits for a line then.
type reply struct{ state, code, text string }

func (r reply) String() string {
	switch {
	case r.state == "ok":
		return "ok"
	case r.code == "":
		return shorten(r.words())
	}
	return r.code + ": " + shorten(r.words())
}

// severity is where PostgreSQL's words begin.
var severity = regexp.MustCompile("(ERROR|FATAL):")

// words are the text from PostgreSQL's severity on, without the SQLSTATE.
func (r reply) words() string {
	text := r.text
	if at := severity.FindStringIndex(text); at != nil {
		text = text[at[0]:]
	}
	if r.code != "" {
		text = strings.ReplaceAll(strings.ReplaceAll(text, " (SQLSTATE "+r.code+")", ""), r.code+": ", "")
	}
	return text
}

// talker is a driver that obeys one command after the other.
type talker struct {
	cmd   *exec.Cmd
	in    io.WriteCloser
	out   *bufio.Scanner
	error strings.Builder
}

// environ is what a driver is told of a server or gate.
func (l *lab) environ(d driver, port int) ([]string, error) {
	home, err := os.MkdirTemp(l.dir, "home-")
	if err != nil {
		return nil, err
	}
	return append(slices.Clone(d.env), "HOME="+home, "INTEROP_HOST=localhost", "INTEROP_PORT="+strconv.Itoa(port),
		"INTEROP_CA="+l.caFile, "INTEROP_CERT="+l.clientCert, "INTEROP_KEY="+l.clientKey, "INTEROP_KEY_DER="+l.file("client.der"),
		"INTEROP_PASSWORD="+password), nil
}

// talk starts a driver for commands, with extra variables. end must be called.
func (l *lab) talk(ctx context.Context, d driver, port int, extra ...string) (*talker, error) {
	env, err := l.environ(d, port)
	if err != nil {
		return nil, err
	}
	argv := append(slices.Clone(d.argv), "moments")
	t := &talker{cmd: exec.CommandContext(ctx, argv[0], argv[1:]...)}
	t.cmd.Env = slices.Concat(env, []string{"INTEROP_SIZE=0", "INTEROP_IDLE=0", "INTEROP_WAY="}, extra)
	t.cmd.Stderr = &t.error
	harness.Bound(t.cmd)
	if t.in, err = t.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := t.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	t.out = bufio.NewScanner(out)
	return t, t.cmd.Start()
}

// say has the driver obey a command and returns its answer. A driver that dies is an
// error; one that hangs ends with the context of talk.
func (t *talker) say(command string) (reply, error) {
	if _, err := io.WriteString(t.in, command+"\n"); err != nil {
		return reply{}, fmt.Errorf("%s: %w: %s", command, err, t.error.String())
	}
	if !t.out.Scan() {
		return reply{}, fmt.Errorf("%s: the driver has ended: %s", command, t.error.String())
	}
	fields := strings.SplitN(t.out.Text(), "\t", 3)
	if len(fields) != 3 || fields[0] != "ok" && fields[0] != "error" && fields[0] != "mark" {
		return reply{}, fmt.Errorf("%s: the driver says %q", command, t.out.Text())
	}
	return reply{fields[0], fields[1], fields[2]}, nil
}

// must is say for a command that works.
func (t *talker) must(command string) error {
	r, err := t.say(command)
	if err == nil && r.state != "ok" {
		err = fmt.Errorf("%s: %s", command, r)
	}
	return err
}

func (t *talker) end() error {
	err := t.in.Close()
	return errors.Join(err, t.cmd.Wait())
}
