package upgrade

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"pgwicket/internal/handover"
	"pgwicket/proxy"
)

// Predecessor is the process before this one, which hands over its sockets, its state and its sessions. nil is
// none.
type Predecessor struct {
	PID     int
	Version string

	conn        *handover.Conn
	log         *os.File // the standard error of that process
	sockets     []*passedFile
	commands    *commandClient
	commandConn net.Conn      // of commands; nil: there is none
	over        chan struct{} // closed when the process has ended

	// The rest is for after the switch.
	gate     NewGate
	places   *proxy.Predecessor
	process  handover.Process
	batch    []arrival // that is not committed
	accepted bool      // this process has accepted the batch
	handed   handed
	claim    handover.Claim // to accept connections
	tookBack handover.Mark  // of the other process's
	moved    int            // sessions that have come
	reported bool           // see report
}

type passedFile struct {
	Socket
	*os.File
}

// Meet asks the gate at an admin socket for an upgrade to this process, which must have loaded its
// configuration: all that can fail without having asked is to have succeeded. version is that of this
// process, and stateDir where its locks are.
func Meet(adminSocket, stateDir, version string) (*Predecessor, error) {
	c, process, peer, err := openChannel(adminSocket)
	if err != nil {
		return nil, err
	}
	p := &Predecessor{conn: c, PID: peer.PID, process: process, over: make(chan struct{})}
	c.SetDeadline(time.Now().Add(meetTimeout))
	if err = c.Send(handover.Hello, hello{handover.Version, version, directoryID(stateDir)}, nil); err == nil {
		err = p.receiveSockets()
	}
	if err != nil {
		_ = c.Close()
		return nil, err
	}
	c.SetDeadline(time.Time{})
	return p, nil
}

// openChannel connects to the admin socket, and has a channel opened. The kernel says whose it is.
func openChannel(adminSocket string) (c *handover.Conn, process handover.Process, peer handover.Peer, err error) {
	conn, err := new(net.Dialer).Dial("unix", adminSocket)
	switch {
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, fs.ErrNotExist):
		return nil, process, peer, fmt.Errorf("nothing listens on %s; is the gate running with this configuration?", adminSocket)
	case err != nil:
		return nil, process, peer, err
	}
	defer conn.Close()
	u := conn.(*net.UnixConn)
	_ = u.SetDeadline(time.Now().Add(meetTimeout))
	if _, err := fmt.Fprintf(u, "POST %s HTTP/1.1\r\nHost: pgwicket\r\nConnection: Upgrade\r\nUpgrade: pgwicket-upgrade\r\nContent-Length: 0\r\n\r\n", Path); err != nil {
		return nil, process, peer, err
	}
	if err := readSwitch(u); err != nil {
		return nil, process, peer, fmt.Errorf("%s: %w", adminSocket, err)
	}
	f, err := handover.OverSocket(u).Receive()
	if err != nil || len(f.Files) != 1 {
		f.Close()
		return nil, process, peer, fmt.Errorf("%s: no channel has come: %w", adminSocket, err)
	}
	if c, err = handover.NewConn(f.Files[0]); err != nil {
		return nil, process, peer, err
	}
	process, peer, err = c.Process()
	if err == nil && peer.UID != os.Geteuid() {
		err = fmt.Errorf("the process at %s has the account %d, and this one has %d", adminSocket, peer.UID, os.Geteuid())
	}
	if err != nil {
		process.Close()
		_ = c.Close()
	}
	return c, process, peer, err
}

// readSwitch reads the answer to the request, and not a byte behind it: the descriptor comes with the
// next one.
func readSwitch(u *net.UnixConn) error {
	const most = 8 << 10
	var head []byte
	for one := make([]byte, 1); !strings.HasSuffix(string(head), "\r\n\r\n"); head = append(head, one[0]) {
		if _, err := io.ReadFull(u, one); err != nil {
			return err
		}
		if len(head) > most {
			return handover.ErrFormat
		}
	}
	r, err := http.ReadResponse(bufio.NewReader(strings.NewReader(string(head))), nil)
	if err != nil {
		return err
	}
	defer r.Body.Close()
	if r.StatusCode == http.StatusSwitchingProtocols {
		return nil
	}
	text, _ := io.ReadAll(io.LimitReader(u, most))
	if r.StatusCode == http.StatusNotFound || r.StatusCode == http.StatusMethodNotAllowed {
		return errors.New("the gate is of a release without upgrades; restart it")
	}
	return errors.New(strings.TrimSpace(string(text)))
}

// receiveSockets takes what the old process passes, and its environment of systemd.
func (p *Predecessor) receiveSockets() error {
	var w welcome
	if err := expect(p.conn, handover.Welcome, &w); err != nil {
		return err
	}
	p.Version = w.Version
	const most = 1000 // far more than anybody has listeners
	if w.Format != handover.Version || w.Sockets > most {
		return fmt.Errorf("the gate hands over in format %d, and this release in format %d", w.Format, handover.Version)
	}
	if err := allowFiles(w.Files); err != nil {
		return err
	}
	for range w.Sockets {
		f, err := p.conn.Receive()
		if err != nil {
			return err
		}
		var s Socket
		if err := f.Decode(&s); err != nil || f.Kind != handover.Socket || len(f.Files) != 1 {
			f.Close()
			return fmt.Errorf("%w: %v", handover.ErrFormat, f.Kind)
		}
		p.sockets = append(p.sockets, &passedFile{s, os.NewFile(uintptr(f.Files[0]), nameOf(s))})
	}
	if p.log = p.Take(roleLog, ""); p.log == nil {
		return errors.New("the gate passes no log")
	}
	f := p.Take(roleCommands, "")
	if f == nil {
		return errors.New("the gate passes no connection for commands")
	}
	conn, err := net.FileConn(f)
	_ = f.Close()
	if err != nil {
		return err
	}
	p.commands, p.commandConn = clientOver(conn), conn
	for name, value := range map[string]string{"NOTIFY_SOCKET": w.NotifySocket, "WATCHDOG_USEC": w.WatchdogUsec} {
		if value != "" {
			_ = os.Setenv(name, value)
		}
	}
	_ = os.Unsetenv("WATCHDOG_PID") // of the process that systemd has started
	return nil
}

// AdoptLog has the standard error of this process lead where that of the old one does.
func (p *Predecessor) AdoptLog() error {
	defer p.log.Close()
	return handover.With(p.log, func(fd int) error { return os.NewSyscallError("dup3", unix.Dup3(fd, unix.Stderr, 0)) })
}

func nameOf(s Socket) string { return s.Role + " " + s.Address }

// Take returns a socket that was passed, for which the caller is responsible then; nil: there is none.
func (p *Predecessor) Take(role, address string) *os.File {
	if p == nil {
		return nil
	}
	i := slices.IndexFunc(p.sockets, func(s *passedFile) bool { return s.Role == role && s.Address == address })
	if i < 0 {
		return nil
	}
	f := p.sockets[i].File
	p.sockets = slices.Delete(p.sockets, i, i+1)
	return f
}
