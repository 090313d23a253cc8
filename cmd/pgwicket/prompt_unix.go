//go:build unix

package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// secretPrompt asks for one line at a terminal, without echo.
type secretPrompt struct {
	fd     int
	out    io.Writer
	text   string
	before unix.Termios
	ends   chan os.Signal // those that end or stop the process, while the echo is off
	shown  bool
}

// readSecret prints a text and reads a line from a terminal without echo. Before a signal
// ends or stops the process, the terminal has its echo back. One that would end it is given
// to raise, and errInterrupted is returned if raise returns.
func readSecret(tty *os.File, out io.Writer, text string, raise func(os.Signal)) ([]byte, error) {
	p := &secretPrompt{fd: int(tty.Fd()), out: out, text: text, ends: make(chan os.Signal, 8)}
	before, err := unix.IoctlGetTermios(p.fd, getTermios)
	if err != nil {
		return nil, err
	}
	p.before = *before
	continued := make(chan os.Signal, 1)
	signal.Notify(continued, syscall.SIGCONT)
	defer signal.Stop(continued)
	if err := p.show(); err != nil {
		return nil, err
	}
	type line struct {
		secret []byte
		err    error
	}
	read := make(chan line, 1)
	go func() {
		secret, err := readLine(p.fd)
		read <- line{secret, err}
	}()
	for {
		select {
		case l := <-read:
			p.hide(setTermios)
			return l.secret, l.err
		case <-continued:
			if err := p.show(); err != nil {
				return nil, err
			}
		case sig := <-p.ends:
			if sig == syscall.SIGTSTP {
				p.suspend()
				continue
			}
			p.hide(setTermiosFlush) // half a passphrase is not for the shell
			raise(sig)
			return nil, errInterrupted
		}
	}
}

// show turns the echo off and prints the text. It does nothing in the background, where the
// system stops a process that reads, with SIGTTIN, until it is continued in the foreground.
func (p *secretPrompt) show() error {
	if group, err := unix.IoctlGetInt(p.fd, unix.TIOCGPGRP); err == nil && group != unix.Getpgrp() {
		return nil
	}
	signals := slices.DeleteFunc([]os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT, syscall.SIGTSTP}, signal.Ignored)
	signal.Notify(p.ends, signals...)
	p.shown = true
	silent := p.before
	silent.Lflag = silent.Lflag&^unix.ECHO | unix.ICANON | unix.ISIG
	silent.Iflag |= unix.ICRNL
	if err := unix.IoctlSetTermios(p.fd, setTermios, &silent); err != nil {
		p.hide(setTermios)
		return err
	}
	fmt.Fprint(p.out, p.text)
	return nil
}

// hide turns the echo on again.
func (p *secretPrompt) hide(request uint) {
	if p.shown {
		_ = unix.IoctlSetTermios(p.fd, request, &p.before) // the terminal may be gone
		fmt.Fprintln(p.out)
		signal.Stop(p.ends)
		p.shown = false
	}
}

// suspend stops the process as SIGTSTP does, which os/signal cannot give back to the system.
// A leader of its session has no shell that could continue it, so the system would not stop
// it either.
func (p *secretPrompt) suspend() {
	if session, err := unix.Getsid(0); err != nil || session == unix.Getpgrp() {
		return
	}
	p.hide(setTermiosFlush)
	_ = syscall.Kill(os.Getpid(), syscall.SIGSTOP)
}

// raise ends the process as the signal does by default.
func raise(sig os.Signal) {
	if s, ok := sig.(syscall.Signal); ok {
		_ = syscall.Kill(os.Getpid(), s)
		time.Sleep(time.Second) // another thread may get it
	}
}

// readLine reads a line, of which the terminal returns at most one for each read.
func readLine(fd int) (line []byte, err error) {
	buffer := make([]byte, 4096) // more than a terminal takes
	defer clear(buffer)
	for {
		n, err := unix.Read(fd, buffer)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return nil, err
		case n == 0 && len(line) == 0:
			return nil, io.EOF
		}
		line = append(line, buffer[:n]...)
		if end := bytes.IndexByte(line, '\n'); end >= 0 || n == 0 {
			return bytes.TrimSuffix(line, []byte("\n")), nil
		}
	}
}
