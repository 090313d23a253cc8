package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"

	"pgwicket/internal/pgtest"
)

// policyFile tells Debian's packages whether they may start services.
const policyFile = "/usr/sbin/policy-rc.d"

// install makes sure that the programs of these contenders are there: as root
// on Debian with apt-get, else it says what to install.
func install(ctx context.Context, all []contender, may bool, out io.Writer) error {
	var missing []string
	for _, c := range all {
		if c.program != "" && program(c.program) == "" {
			missing = append(missing, c.pkg)
		}
	}
	if _, err := pgtest.Find(); err != nil {
		missing = append(missing, "postgresql")
	}
	if len(missing) == 0 {
		return nil
	}
	line := "apt-get install " + strings.Join(missing, " ")
	if _, err := exec.LookPath("apt-get"); err != nil || os.Geteuid() != 0 || !may {
		return fmt.Errorf("missing: please run \"sudo %s\" (and stop the services that it starts), or leave contenders out with --contenders", line)
	}
	fmt.Fprintln(out, "installing with", line)
	release, err := forbidServices()
	if err != nil {
		return err
	}
	defer release()
	for _, args := range [][]string{{"update", "-qq"}, append([]string{"install", "-y", "-qq", "--no-install-recommends", "-o", "Dpkg::Options::=--force-confold"}, missing...)} {
		cmd := exec.CommandContext(ctx, "apt-get", args...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "RUNLEVEL=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("apt-get %s: %w\n%s", args[0], err, out)
		}
	}
	return nil
}

// forbidServices keeps packages from starting their daemons until release is
// called. A policy that is there already stays.
func forbidServices() (release func(), err error) {
	f, err := os.OpenFile(policyFile, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755) //nolint:gosec // a script for all
	if errors.Is(err, os.ErrExist) {
		return func() {}, nil
	}
	if err != nil {
		return nil, err
	}
	_, err = f.WriteString("#!/bin/sh\nexit 101\n")
	return func() { _ = os.Remove(policyFile) }, errors.Join(err, f.Close())
}

// program returns the path of a program, also from the directories of
// daemons, which an ordinary user's PATH lacks; empty if there is none.
func program(name string) string {
	for _, dir := range append(strings.Split(os.Getenv("PATH"), ":"), "/usr/sbin", "/usr/local/sbin") {
		if p, err := exec.LookPath(dir + "/" + name); err == nil {
			return p
		}
	}
	return ""
}
