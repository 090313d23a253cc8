//go:build unix

package main

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/rogpeppe/go-internal/testscript"

	"pgwicket/config"
	"pgwicket/internal/sandbox"
)

// confined is a command of the scripts: it enters the sandbox of a gate whose
// configuration is in the directory of its first argument, and whose files the others
// name. It tries what only code that has taken over a gate would, and prints the errors.
func confined() {
	dir := os.Args[1]
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	// The kernel drops inodes when memory is short, and root can make it do so. For
	// others, and in most containers, forget is nil and writing to it does nothing.
	forget, _ := os.OpenFile("/proc/sys/vm/drop_caches", os.O_WRONLY, 0)
	names := []config.Name{{Path: filepath.Join(dir, "pgwicket.yaml")}}
	for _, file := range os.Args[2:] {
		names = append(names, config.Name{Path: file})
	}
	s, err := sandbox.Enter(slog.New(slog.NewTextHandler(os.Stderr, nil)), sandbox.Options{Names: names})
	if err != nil || s == nil {
		panic(err)
	}
	defer runtime.KeepAlive(s) // as a gate does
	for range 3 {              // an entry in use lately survives the first time
		_, _ = forget.WriteString("2")
	}
	_, file := os.ReadFile(filepath.Join(dir, "pgwicket.yaml"))
	_, list := os.ReadDir(dir)
	_, own := os.ReadDir(fmt.Sprintf("/proc/%d/fd", os.Getpid()))
	_, boot := os.ReadFile("/proc/stat")
	_, passwords := os.ReadFile("/etc/passwd")
	_, other := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", os.Getppid()))
	write := os.WriteFile(filepath.Join(dir, "new"), nil, 0o600)
	change := os.Truncate(filepath.Join(dir, "pgwicket.yaml"), 0)
	remove := os.Remove(filepath.Join(dir, "pgwicket.yaml"))
	run := exec.Command("/bin/true").Run()
	var plain net.ListenConfig // Landlock does not see those of MPTCP
	plain.SetMultipathTCP(false)
	_, bind := plain.Listen(context.Background(), "tcp", "127.0.0.1:0")
	_, dial := net.Dial("tcp", listener.Addr().String())
	signal := syscall.Kill(os.Getppid(), 0)
	for _, l := range []struct {
		what string
		err  error
	}{
		{"read", file},
		{"list", list},
		{"own", own},
		{"boot", boot},
		{"passwords", passwords},
		{"other", other},
		{"write", write},
		{"change", change},
		{"remove", remove},
		{"run", run},
		{"bind", bind},
		{"dial", dial},
		{"signal", signal},
	} {
		fmt.Println(l.what, l.err)
	}
}

// cmdAccount names the account that the database runs under, for the gate.
func cmdAccount(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, !neg && len(args) == 0, "account")
	db, err := database.get()
	ts.Check(err)
	st, err := os.Stat(db.SocketDir)
	ts.Check(err)
	u, err := user.LookupId(strconv.Itoa(int(st.Sys().(*syscall.Stat_t).Uid)))
	ts.Check(err)
	groups, err := u.GroupIds()
	ts.Check(err)
	slices.SortFunc(groups, func(a, b string) int { x, _ := strconv.Atoi(a); y, _ := strconv.Atoi(b); return x - y })
	ts.Setenv("ACCOUNT", u.Username)
	ts.Setenv("ACCOUNT_UID", u.Uid)
	ts.Setenv("ACCOUNT_GID", u.Gid)
	ts.Setenv("ACCOUNT_GROUPS", strings.Join(groups, " "))
}

// cmdHome changes to a directory whose files belong to the account that the gate
// becomes as root, so that check has nothing to warn of.
func cmdHome(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, !neg && len(args) == 0, "home")
	cmdTmpDir(ts, false, nil)
	dir := ts.Getenv("TMPDIR")
	ts.Check(ts.Chdir(dir))
	ts.Setenv("HOMEDIR", dir)
	ts.Check(os.Chmod(dir, 0o755))
	if os.Geteuid() == 0 {
		cmdAccount(ts, false, nil)
	}
}

// giveAway gives the files of home to its account.
func giveAway(ts *testscript.TestScript) {
	dir := ts.Getenv("HOMEDIR")
	if dir == "" || os.Geteuid() != 0 {
		return
	}
	uid, err := strconv.Atoi(ts.Getenv("ACCOUNT_UID"))
	ts.Check(err)
	ts.Check(filepath.Walk(dir, func(path string, _ fs.FileInfo, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, uid, -1)
	}))
}

// cmdThreads compares lines of /proc/PID/status, of every thread.
func cmdThreads(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, !neg && len(args) >= 2, "threads NAME FIELD=REGEXP...")
	pid := stateOf(ts).process(ts, args[0]).cmd.Process.Pid
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	ts.Check(err)
	need(ts, len(files) > 1, "a process with threads")
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended meanwhile
		}
		fields := make(map[string]string)
		for line := range strings.Lines(string(text)) {
			key, value, _ := strings.Cut(line, ":")
			fields[key] = strings.Join(strings.Fields(value), " ")
		}
		for _, a := range args[1:] {
			key, want, _ := strings.Cut(a, "=")
			if re := regexp.MustCompile("^(?:" + want + ")$"); !re.MatchString(fields[key]) {
				ts.Fatalf("%s: %s is %q, not %s", file, key, fields[key], want)
			}
		}
	}
}

// cmdHidden looks at what a process that may not be dumped has in /proc.
func cmdHidden(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, !neg && len(args) == 1, "hidden NAME")
	proc := fmt.Sprintf("/proc/%d/", stateOf(ts).process(ts, args[0]).cmd.Process.Pid)
	st, err := os.Stat(proc + "mem")
	ts.Check(err)
	limits, err := os.ReadFile(proc + "limits")
	ts.Check(err)
	if owner := st.Sys().(*syscall.Stat_t).Uid; owner != 0 || !regexp.MustCompile(`(?m)^Max core file size +0 +0 `).Match(limits) {
		ts.Fatalf("the memory belongs to %d, and the limits are\n%s", owner, limits)
	}
}

// cmdBackend makes a socket that leads to the database, in place of the one that
// was there: another inode, as after a restart of PostgreSQL.
func cmdBackend(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, !neg && len(args) == 1, "backend PATH")
	db, err := database.get()
	ts.Check(err)
	path := args[0]
	if !strings.HasPrefix(path, "@") {
		path = ts.MkAbs(path)
		_ = os.Remove(path)
	}
	ln, err := net.Listen("unix", path)
	ts.Check(err)
	ln.(*net.UnixListener).SetUnlinkOnClose(false) // there may be a new one
	ts.Defer(func() { _ = ln.Close() })
	go func() {
		for {
			client, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer client.Close()
				server, err := net.Dial("unix", fmt.Sprintf("%s/.s.PGSQL.%d", db.SocketDir, db.Port))
				if err != nil {
					return
				}
				defer server.Close()
				go func() {
					_, _ = io.Copy(server, client)
					_ = server.(*net.UnixConn).CloseWrite()
				}()
				_, _ = io.Copy(client, server)
			}()
		}
	}()
}
