package main

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

// withoutCapabilities fails unless the change of the account has taken all of
// them, which securebits or a user namespace can prevent.
func withoutCapabilities() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData
	if err := unix.Capget(&header, &sets[0]); err != nil {
		return fmt.Errorf("user: capget: %w", err)
	}
	for _, s := range sets {
		if s.Effective|s.Permitted != 0 {
			return errors.New("user: the system has left capabilities to an account that is not root's")
		}
	}
	return nil
}

// noNewPrivileges keeps all threads, and what they start, from becoming somebody
// else by a program with the setuid bit.
func noNewPrivileges() error {
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

// domain is the port of DNS.
const domain = 53

// landlockABI is how much of Landlock there is; 0 with the reason if it is none.
func landlockABI() (int, error) {
	abi, err := ll.LandlockGetABIVersion()
	if err != nil {
		return 0, err
	}
	const signalsMended = 1 << 1 // without it the library does without scopes
	if errata, err := ll.LandlockGetErrata(); abi >= abiScopes && (err != nil || errata&signalsMended == 0) {
		abi = abiScopes - 1
	}
	return abi, nil
}

// enter takes away from every thread what s does not leave, as far as the kernel
// can, and says so in the log. It returns what is in force, nil for nothing.
func (s *sandbox) enter(log *slog.Logger, listen []string) (*sandbox, error) {
	abi, err := landlockABI()
	if err != nil {
		log.Info("no sandbox: the system has no Landlock, or does not let it be used", "error", err.Error())
		return nil, nil //nolint:nilnil // none is as good an answer as one
	}
	_, _ = time.Now().Zone() // has Go read the time zone, which it does once
	config := landlock.V11
	var rules []landlock.Rule
	var left []string // open, and why
	if s.commands {
		// What a shell and the programs it starts want to read, and to talk to, nobody knows.
		config.HandledAccessFS &^= ll.AccessFSExecute | ll.AccessFSReadFile | ll.AccessFSReadDir | ll.AccessFSIoctlDev | ll.AccessFSResolveUnix
		config.HandledAccessNet = ll.AccessNetBindTCP
		rules = append(rules, landlock.RWDirs("/dev", os.TempDir(), "/tmp", "/var/tmp").IgnoreIfMissing())
		left = append(left, "reading, running programs and connecting (tls.passphrase_command)")
		s.sockets = nil
	} else {
		const read = ll.AccessFSReadFile | ll.AccessFSReadDir
		for name, access := range map[string]landlock.AccessFSSet{"/proc/self/": read, "/proc/stat": ll.AccessFSReadFile} {
			f, err := os.Open(name)
			if err != nil {
				log.Info("some of the process_ metrics will be missing", "error", err.Error()) // systemd's ProcSubset= hides them, too
				continue
			}
			s.held = append(s.held, f)
			rules = append(rules, landlock.PathAccess(access, name))
		}
		for _, d := range s.dirs {
			rules = append(rules, landlock.PathAccess(read, d.name).IgnoreIfMissing())
			if isSystem(d.name) {
				log.Warn("the sandbox leaves a directory of the system readable, passwords included, as a file of the configuration is in it; give them one of their own", "directory", d.name)
			}
		}
		if s.resolves {
			rules = append(rules, landlock.ConnectTCP(domain), landlock.ConnectSendUDP(domain), landlock.BindUDP(0),
				landlock.PathAccess(ll.AccessFSReadFile, "/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/services").IgnoreIfMissing())
		}
		for _, port := range s.ports {
			rules = append(rules, landlock.ConnectTCP(port))
		}
		for _, d := range s.sockets {
			rules = append(rules, landlock.PathAccess(ll.AccessFSResolveUnix, d.name).IgnoreIfMissing())
		}
	}
	if s.removes != "" {
		rules = append(rules, landlock.PathAccess(ll.AccessFSRemoveFile, s.removes))
	}
	if s.abstract {
		config.Scoped &^= ll.ScopeAbstractUnixSocket
	}
	if os.Getenv("WATCHDOG_USEC") != "" { // the gate will prove itself alive by connecting to its listeners
		rules = append(rules, landlock.BindTCP(0))
		for _, address := range listen {
			if ap, err := netip.ParseAddrPort(address); err == nil && !s.commands {
				rules = append(rules, landlock.ConnectTCP(ap.Port()))
			}
		}
	}
	for _, lacks := range []struct {
		since int
		what  string
	}{{abiTCP, "TCP"}, {abiScopes, "signals and abstract sockets"}, {abiUnix, "Unix sockets"}, {abiUDP, "UDP"}} {
		if abi < lacks.since {
			left = append(left, fmt.Sprintf("%s (the kernel's Landlock has version %d, %d is needed)", lacks.what, abi, lacks.since))
		}
	}
	s.abstract = s.abstract || abi < abiScopes
	s.anywhere = abi < abiTCP
	if abi < abiUnix {
		s.sockets = nil
	}
	if err := config.BestEffort().Restrict(rules...); err != nil {
		return nil, err
	}
	read := []string{"/"}
	if !s.commands {
		read = read[:0]
		for _, d := range s.dirs {
			read = append(read, d.name)
		}
	}
	log.Info("in a sandbox", "landlock", abi, "readable", read, "left_open", left)
	return s, nil
}
