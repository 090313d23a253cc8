//go:build linux

package main

import (
	"context"
	"crypto/md5" //nolint:gosec // what PostgreSQL has, too
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"pgwicket/test/harness"
)

// rowsSQL makes the rows of writeRows.
const rowsSQL = "select n, repeat(md5(n::text), 31) from generate_series(1, %d) n"

// rows is how many a COPY has: of 1,000 bytes or a little less each, 1 GiB together.
func (t *trial) rows() int {
	const least = 990
	if t.quick {
		return 64 << 20 / least
	}
	return 1 << 30 / least
}

// writeRows writes rows as COPY does.
func writeRows(w io.Writer, rows int) error {
	for n := 1; n <= rows; n++ {
		number := strconv.Itoa(n)
		sum := md5.Sum([]byte(number)) //nolint:gosec // likewise
		if _, err := io.WriteString(w, number+"\t"+strings.Repeat(hex.EncodeToString(sum[:]), 31)+"\n"); err != nil {
			return err
		}
	}
	return nil
}

// digestOf returns the SHA-256 of what a function writes, and its length.
func digestOf(write func(io.Writer) error) (sum string, size int64, err error) {
	digest, counted := sha256.New(), new(counter)
	err = write(io.MultiWriter(digest, counted))
	return hex.EncodeToString(digest.Sum(nil)), int64(*counted), err
}

type counter int64

func (c *counter) Write(b []byte) (int, error) { *c += counter(len(b)); return len(b), nil }

// wholeRows returns the digest and the size of all rows.
func (t *trial) wholeRows() (sum string, size int64, err error) {
	return digestOf(func(w io.Writer) error { return writeRows(w, t.rows()) })
}

// psql makes one that goes through the gate. It is killed when ctx ends.
func (t *trial) psql(ctx context.Context, sql string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(t.server.BinDir, "psql"), "-XAtq", "-v", "ON_ERROR_STOP=1", "-c", sql)
	cmd.Env = t.gateEnv(t.gate, scramUser, "postgres")
	harness.Bound(cmd)
	return cmd
}

func inTime(size int64, began time.Time, done string) string {
	return fmt.Sprintf("%d MiB in %.0f s, %s", size>>20, time.Since(began).Seconds(), done)
}

func copyOutUpgraded(ctx context.Context, t *trial) (string, error) {
	want, size, err := t.wholeRows()
	if err != nil {
		return "", err
	}
	u, began := t.upgrades(size), time.Now()
	cmd := t.psql(ctx, fmt.Sprintf("copy ("+rowsSQL+") to stdout", t.rows()))
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.StdoutPipe()
	if err != nil {
		return "", err
	}
	if err := cmd.Start(); err != nil {
		return "", err
	}
	got, _, err := digestOf(func(w io.Writer) error { _, err := io.Copy(io.MultiWriter(w, u), out); return err })
	if err = errors.Join(err, cmd.Wait()); err != nil {
		return "", fmt.Errorf("psql: %w: %s", err, said.String())
	}
	done, err := u.end()
	if err == nil && got != want {
		err = fmt.Errorf("the SHA-256 is %s and not %s", got, want)
	}
	return inTime(size, began, done) + "; the SHA-256 is right", err
}

func copyInUpgraded(ctx context.Context, t *trial) (string, error) {
	_, size, err := t.wholeRows()
	if err != nil {
		return "", err
	}
	u, began := t.upgrades(size), time.Now()
	cmd := t.psql(ctx, "copy copied from stdin")
	var said strings.Builder
	cmd.Stderr = &said
	in, err := cmd.StdinPipe()
	if err != nil {
		return "", err
	}
	if err := cmd.Start(); err != nil {
		return "", err
	}
	if err = writeRows(io.MultiWriter(in, u), t.rows()); err != nil {
		_ = cmd.Process.Kill() // or it would commit a part
	}
	if err = errors.Join(err, in.Close(), cmd.Wait()); err != nil {
		return "", errors.Join(fmt.Errorf("psql: %w: %s", err, said.String()), u.wait())
	}
	done, err := u.end()
	return inTime(size, began, done) + "; every row is right", errors.Join(err, t.rowsThere(ctx))
}

// rowsThere fails unless the table copied has exactly the rows. It is empty then.
func (t *trial) rowsThere(ctx context.Context) error {
	got, err := t.ask(ctx, t.straight(), "select count(*), count(distinct n), min(n), max(n), bool_and(body = repeat(md5(n::text), 31)) from copied")
	if want := fmt.Sprintf("%[1]d|%[1]d|1|%[1]d|t", t.rows()); err == nil && got != want {
		err = fmt.Errorf("the table has %s and not %s", got, want)
	}
	_, empty := t.ask(ctx, t.straight(), "truncate copied")
	return errors.Join(err, empty)
}

// jdbcCopies has JDBC copy the rows, and returns what it says at the end.
func (t *trial) jdbcCopies(ctx context.Context, command string) (said, done string, err error) {
	_, size, err := t.wholeRows()
	if err != nil {
		return "", "", err
	}
	d := driver{name: jdbc().name}
	if d.argv, d.env, err = jdbc().prepare(ctx, t.lab); err != nil {
		return "", "", err
	}
	if d, err = t.changingKeys(d); err != nil {
		return "", "", err
	}
	client, err := t.talk(ctx, d, t.gate.Port)
	if err != nil {
		return "", "", err
	}
	defer func() { err = errors.Join(err, client.end()) }()
	if err := client.must("open " + scramUser); err != nil {
		return "", "", err
	}
	u, began := t.upgrades(size), time.Now()
	part := size/(upgradesPerWork+1) + 1
	r, err := client.say(fmt.Sprintf("%s %d %d", command, t.rows(), part))
	for err == nil && r.state == "mark" {
		if err = u.did(ctx, part); err == nil {
			r, err = client.say("go on")
		}
	}
	if err == nil && r.state != "ok" {
		err = fmt.Errorf("%s: %s", command, r)
	}
	if err != nil {
		return "", "", errors.Join(err, u.wait())
	}
	if done, err = u.end(); err != nil {
		return "", "", err
	}
	return r.text, inTime(size, began, done), client.must("close")
}

func jdbcOutUpgraded(ctx context.Context, t *trial) (string, error) {
	want, _, err := t.wholeRows()
	if err != nil {
		return "", err
	}
	got, done, err := t.jdbcCopies(ctx, "copy-out")
	if err == nil && got != want {
		err = fmt.Errorf("the SHA-256 is %s and not %s", got, want)
	}
	return done + "; the SHA-256 is right", err
}

func jdbcInUpgraded(ctx context.Context, t *trial) (string, error) {
	got, done, err := t.jdbcCopies(ctx, "copy-in")
	if want := strconv.Itoa(t.rows()); err == nil && got != want {
		err = fmt.Errorf("%s rows are confirmed, and not %s", got, want)
	}
	if err != nil {
		return "", err
	}
	return done + "; every row is right", t.rowsThere(ctx)
}
