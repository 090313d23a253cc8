package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"pgwicket/cmd/pgwicket/cli"
	"pgwicket/internal/adminclient"
	"pgwicket/internal/gate"
	"pgwicket/internal/phrase"
	"pgwicket/internal/printable"
	"pgwicket/internal/upgrade"
)

const upgradeHelp = `Start a new process that takes over from the running gate, without ending a session or
refusing a connection: this program, or the one that --binary names. It loads the
configuration of --config first, with every file that it names. Then it gets the
listening sockets, what limits and back-offs know of clients, the locks and the
counters, and accepts connections. Then it gets the sessions, whatever they are doing,
and goes on with them.

Some sessions cannot be handed over: those over TLS 1.2 with a CBC cipher suite, and all
of them in FIPS 140-3 mode. The old process keeps them, and the connections in their
startup. It leaves them alone for half of limits.drain_timeout, then ends each when it is
outside of a transaction, and the rest at the end of that time.

If anything fails before the new process accepts connections, the old one goes on as
if nothing had happened, and the reason is printed. Settings that need a restart are
applied, too.

The command needs admin.socket. Run it as root or as the account of the gate, with the
same environment as the gate if that has part of the configuration. The new process
has the account and the groups of the old one, and its log goes where that of the old
one goes. Under systemd, run "systemctl reload pgwicket" instead, so that the process
belongs to the unit: it upgrades if the program has been replaced. A unit whose key is
from LoadCredential= can only be restarted, and --dry-run fails.

Exit status: 0 the new process serves, 1 it does not and the old one goes on, 2 wrong
usage.`

func upgradeCommand(s cli.Streams) *cobra.Command {
	cmd := &cobra.Command{
		Use: "upgrade", Short: "Replace the running process by a new one", Long: upgradeHelp,
		Example: "  pgwicket upgrade --dry-run\n  pgwicket upgrade --binary /usr/local/bin/pgwicket",
	}
	path := cli.ConfigFlag(cmd)
	var binary string
	cli.FileFlag(cmd, &binary, "binary", "the `program` to start (default this one)")
	dry := cmd.Flags().Bool("dry-run", false, "only print what an upgrade would do")
	orReload := cmd.Flags().Bool("or-reload", false, "for ExecReload= of a unit: upgrade if this program is another file than the gate runs, and else have $MAINPID reload")
	timeout := cli.TimeoutFlag(cmd, gate.MaxReload, "how long to wait until the new process serves")
	return cli.Runs(cmd, func() int {
		if *orReload && !replaced(s, *path, *timeout) {
			return reloadMain(s)
		}
		plan, account, err := askPlan(*path, *timeout)
		if err != nil {
			return cli.Fail(s, cmd.Name(), err)
		}
		if *dry {
			return printPlan(s, plan)
		}
		if plan.Problem != "" {
			return cli.Fail(s, cmd.Name(), errors.New(plan.Problem))
		}
		for _, name := range plan.Credentials {
			if _, err := os.Stat(name); err != nil { // opening a device or a FIFO that a gate names would do more
				return cli.Fail(s, cmd.Name(), fmt.Errorf("%w (%w); process %d goes on", ofCredential(name), errors.Unwrap(err), plan.PID))
			}
		}
		began := time.Now()
		done, err := startUpgrade(s, account, binary, *path, *timeout)
		if err != nil {
			return cli.Fail(s, cmd.Name(), fmt.Errorf("%w; process %d goes on", err, plan.PID))
		}
		fmt.Fprintf(s.Out, "upgraded in %v: a new process has taken over from process %d (%s), with %s\n",
			time.Since(began).Round(time.Millisecond), done.PID, printable.Escape(done.Version), phrase.Count(done.Moved, "session"))
		if done.Stay+done.Starting > 0 {
			fmt.Fprintf(s.Out, "process %d finishes %s and %s in startup, for at most %v\n", done.PID,
				phrase.Count(done.Stay, "session"), phrase.Count(done.Starting, "connection"), done.Drain)
		}
		return cli.OK
	})
}

// askPlan returns what an upgrade would do, and the account that the new process must have. Root takes the gate's word
// for that from nobody but the kernel, and only where no other account can have put the socket.
func askPlan(path string, timeout time.Duration) (plan upgrade.Plan, account upgrade.Account, err error) {
	c, err := adminclient.New(path, true)
	if err != nil {
		return plan, account, err
	}
	answer, err := c.Ask(http.MethodGet, upgrade.Path, timeout)
	if err == nil {
		err = json.Unmarshal(answer, &plan)
	}
	if err != nil {
		return plan, account, err
	}
	plan.Version, plan.Problem = printable.Escape(plan.Version), printable.Escape(plan.Problem)
	account.UID = plan.UID
	if listener, known := c.Listener(); known && os.Geteuid() == 0 {
		if account, err = upgrade.AccountOf(plan.PID, listener); err == nil {
			err = account.CheckSocket(c.Socket())
		}
	}
	return plan, account, err
}

// replaced reports whether the gate runs another file than this process. Where that cannot be found out, it
// says why.
func replaced(s cli.Streams, path string, timeout time.Duration) bool {
	plan, _, err := askPlan(path, timeout)
	if err != nil {
		fmt.Fprintf(s.Err, "pgwicket upgrade: no upgrade, only a reload: %v\n", err)
		return false
	}
	return plan.Program != "" && plan.Program != upgrade.ProgramID()
}

// reloadMain sends SIGHUP to the main process of the unit.
func reloadMain(s cli.Streams) int {
	pid, err := strconv.Atoi(os.Getenv("MAINPID"))
	if err != nil || pid <= 1 {
		return cli.Fail(s, "upgrade", errors.New("--or-reload needs the variable MAINPID, which systemd sets"))
	}
	if err := hangUp(pid); err != nil {
		return cli.Fail(s, "upgrade", err)
	}
	return cli.OK
}

func printPlan(s cli.Streams, plan upgrade.Plan) int {
	fmt.Fprintf(s.Out, "process %d (%s) would hand %s over; %s and %s in startup would stay, for at most %v\n", plan.PID, plan.Version,
		phrase.Count(plan.Movable, "session"), phrase.Count(plan.Sessions-plan.Movable, "session"), phrase.Count(plan.Starting, "connection"), plan.DrainTimeout)
	switch {
	case plan.Problem != "":
		return cli.Fail(s, "upgrade", errors.New(plan.Problem))
	case len(plan.Credentials) > 0:
		return cli.Fail(s, "upgrade", ofCredential(plan.Credentials[0]))
	}
	return cli.OK
}

// ofCredential is why a unit whose gate has that file cannot upgrade.
func ofCredential(name string) error {
	return fmt.Errorf("systemd gives %s, which is from LoadCredential=, to no process that takes over: restart the gate, or give its account a file", printable.Escape(name))
}

// upgradeReport is what the new process writes into its pipe.
type upgradeReport struct {
	Done  *upgrade.Result `json:"done"`
	Error string          `json:"error"`
}

// reportVariable is the variable of the environment of a new process that has the descriptor of that pipe.
const reportVariable = "UPGRADE_REPORT_FD"

// startUpgrade starts the new process and waits for its report. The process is not ended if that takes too
// long: it may be about to serve.
func startUpgrade(s cli.Streams, account upgrade.Account, binary, path string, timeout time.Duration) (*upgrade.Result, error) {
	if binary == "" {
		self, err := os.Executable()
		if err != nil {
			return nil, err
		}
		binary = self
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	args := []string{"serve"}
	if path != "" {
		args = append(args, "--config", path)
	}
	cmd := exec.Command(binary, args...)
	cmd.Stdin, cmd.Stderr, cmd.ExtraFiles = s.In, s.Err, []*os.File{w}
	cmd.Env = append(os.Environ(), reportVariable+"=3") // the first of ExtraFiles
	if err := detachAs(cmd, account); err != nil {
		_ = w.Close()
		return nil, err
	}
	err = cmd.Start()
	_ = w.Close()
	if err != nil {
		return nil, fmt.Errorf("cannot start the new program: %w", err)
	}
	_ = r.SetReadDeadline(time.Now().Add(timeout))
	text, err := io.ReadAll(r)
	var report upgradeReport
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, fmt.Errorf("process %d does not serve after %v", cmd.Process.Pid, timeout)
	case err != nil:
		return nil, err
	case json.Unmarshal(text, &report) == nil && report.Done != nil:
		return report.Done, nil
	case report.Error != "":
		return nil, errors.New(report.Error)
	}
	return nil, fmt.Errorf("the new process has ended: %w", ended(cmd))
}

// ended waits for a process that has closed its pipe without a word.
func ended(cmd *exec.Cmd) error {
	if err := cmd.Wait(); err != nil {
		return err
	}
	return errors.New("exit status 0")
}
