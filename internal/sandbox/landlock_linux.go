package sandbox

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"time"

	"github.com/landlock-lsm/go-landlock/landlock"
	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"
)

// checkNoCapabilities fails if the change of the account has left a capability, as
// securebits or a user namespace can make it (capabilities(7)).
func checkNoCapabilities() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData
	if err := unix.Capget(&header, &sets[0]); err != nil {
		return fmt.Errorf("user: capget: %w", err)
	}
	for _, s := range sets {
		if s.Effective|s.Permitted != 0 {
			return errors.New("user: the system has left capabilities to an account other than root")
		}
	}
	return nil
}

// NoNewPrivileges keeps all threads, and what they start, from gaining privileges
// by running a program with the setuid bit (PR_SET_NO_NEW_PRIVS).
func NoNewPrivileges() error {
	if err := ll.AllThreadsPrctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("no_new_privs: %w", err)
	}
	return nil
}

// The versions of Landlock's interface that brought more than files.
const (
	abiTCP    = 4
	abiScopes = 6
	abiUnix   = 9
	abiUDP    = 10
)

// dnsPort is asked where backends have names.
const dnsPort = 53

// ABI returns the version of the kernel's Landlock that can be used, or why there is
// none.
func ABI() (int, error) {
	abi, err := ll.LandlockGetABIVersion()
	if err != nil {
		return 0, err
	}
	const signalsFixed = 1 << 1 // LANDLOCK_ERRATA 2; without it go-landlock leaves scopes out
	if errata, err := ll.LandlockGetErrata(); abi >= abiScopes && (err != nil || errata&signalsFixed == 0) {
		abi = abiScopes - 1
	}
	return abi, nil
}

// enter restricts every thread to what s leaves, as far as the kernel can. It
// returns the sandbox in force, nil for none.
func (s *Sandbox) enter(log *slog.Logger, listen []string) (*Sandbox, error) {
	abi, err := ABI()
	if err != nil {
		log.Info("no sandbox: the system has no Landlock, or forbids it", "error", err.Error())
		return nil, nil //nolint:nilnil // nil is no sandbox
	}
	_, _ = time.Now().Zone() // makes Go read the time zone, which it does once
	config := landlock.V11
	readable := []string{"/"}
	var rules []landlock.Rule
	var open []string // with the reasons
	if s.commands {
		// What a command reads and connects to is not known.
		config.HandledAccessFS &^= ll.AccessFSExecute | ll.AccessFSReadFile | ll.AccessFSReadDir | ll.AccessFSIoctlDev | ll.AccessFSResolveUnix
		config.HandledAccessNet = ll.AccessNetBindTCP
		rules = append(rules, landlock.RWDirs("/dev", os.TempDir(), "/tmp", "/var/tmp").IgnoreIfMissing())
		open = append(open, "reading, running programs and connecting (tls.passphrase_command)")
		s.sockets = nil
	} else {
		rules = append(s.procRules(log), s.readRules(log)...)
		rules = append(rules, s.connectRules()...)
		readable = readable[:0]
		for _, d := range s.dirs {
			readable = append(readable, d.name)
		}
	}
	writable := []string{} // JSON shows none as [], not as null
	for _, d := range s.writes {
		rules = append(rules, landlock.PathAccess(read|write, d.name))
		writable = append(writable, d.name)
	}
	if s.removes != "" {
		rules = append(rules, landlock.PathAccess(ll.AccessFSRemoveFile, s.removes))
	}
	if s.abstract {
		config.Scoped &^= ll.ScopeAbstractUnixSocket
	}
	rules = append(rules, s.watchdogRules(listen)...)
	open = append(open, unsupported(abi)...)
	s.abstract = s.abstract || abi < abiScopes
	s.anywhere = abi < abiTCP
	if abi < abiUnix {
		s.sockets = nil
	}
	if err := config.BestEffort().Restrict(rules...); err != nil {
		return nil, err
	}
	log.Info("in a sandbox", "landlock", abi, "readable", readable, "writable", writable, "left_open", open)
	return s, nil
}

const read = ll.AccessFSReadFile | ll.AccessFSReadDir

// write is what replacing a file by another needs: both are in one directory.
const write = ll.AccessFSWriteFile | ll.AccessFSTruncate | ll.AccessFSMakeReg | ll.AccessFSRemoveFile

// procRules leave what the process_ metrics are read from.
func (s *Sandbox) procRules(log *slog.Logger) (rules []landlock.Rule) {
	for name, access := range map[string]landlock.AccessFSSet{"/proc/self/": read, "/proc/stat": ll.AccessFSReadFile} {
		f, err := os.Open(name)
		if err != nil {
			log.Info("some of the process_ metrics are missing", "error", err.Error()) // ProcSubset= of systemd hides them, too
			continue
		}
		s.held = append(s.held, f)
		rules = append(rules, landlock.PathAccess(access, name))
	}
	return rules
}

// readRules leave the directories of the configuration.
func (s *Sandbox) readRules(log *slog.Logger) (rules []landlock.Rule) {
	for _, d := range s.dirs {
		rules = append(rules, landlock.PathAccess(read, d.name).IgnoreIfMissing())
		if isSystem(d.name) {
			log.Warn("a directory of the system stays readable in the sandbox, passwords included, because a file of the configuration is in it; move the file to a directory of its own", "directory", d.name)
		}
	}
	return rules
}

// connectRules leave the backends, and looking up their names.
func (s *Sandbox) connectRules() (rules []landlock.Rule) {
	if s.resolves {
		rules = append(rules, landlock.ConnectTCP(dnsPort), landlock.ConnectSendUDP(dnsPort), landlock.BindUDP(0),
			landlock.PathAccess(ll.AccessFSReadFile, "/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/services").IgnoreIfMissing())
	}
	for _, port := range s.ports {
		rules = append(rules, landlock.ConnectTCP(port))
	}
	for _, d := range s.sockets {
		rules = append(rules, landlock.PathAccess(ll.AccessFSResolveUnix, d.name).IgnoreIfMissing())
	}
	return rules
}

// watchdogRules leave connecting to the listeners, which is how the watchdog of
// systemd is answered.
func (s *Sandbox) watchdogRules(listen []string) []landlock.Rule {
	if os.Getenv("WATCHDOG_USEC") == "" {
		return nil
	}
	rules := []landlock.Rule{landlock.BindTCP(0)}
	for _, address := range listen {
		if ap, err := netip.ParseAddrPort(address); err == nil && !s.commands {
			rules = append(rules, landlock.ConnectTCP(ap.Port()))
		}
	}
	return rules
}

// unsupported returns what this version of Landlock cannot restrict.
func unsupported(abi int) (what []string) {
	for _, f := range []struct {
		since int
		what  string
	}{{abiTCP, "TCP"}, {abiScopes, "signals and abstract sockets"}, {abiUnix, "Unix sockets"}, {abiUDP, "UDP"}} {
		if abi < f.since {
			what = append(what, fmt.Sprintf("%s (Landlock of the kernel has version %d, %d is needed)", f.what, abi, f.since))
		}
	}
	return what
}
