package answer

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"strings"
	"time"
)

// Session is an open session of a client.
type Session struct {
	// Do runs a statement and returns the one value that it yields.
	Do func(ctx context.Context, sql string) (string, error)
	// Cancel cancels what Do runs, as the client's users do it.
	Cancel func(ctx context.Context) error
	Close  func()
}

// Moments obeys the commands that come on standard input, a line each, and answers each
// with a line: ok or error, the SQLSTATE and the text. open returns a session of that
// user; code returns the SQLSTATE of an error.
func Moments(open func(ctx context.Context, user string) (*Session, error), code func(error) string) {
	m := moments{open: open, running: make(chan error, 1)}
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		command, argument, _ := strings.Cut(in.Text(), " ")
		ctx, stop := context.WithTimeout(context.Background(), time.Minute)
		seen, err := m.obey(ctx, command, argument)
		stop()
		if err != nil {
			text := strings.ReplaceAll(strings.Join(strings.Fields(err.Error()), " "), os.Getenv("INTEROP_PORT"), "PORT")
			fmt.Printf("error\t%s\t%s\n", code(err), text)
			continue
		}
		fmt.Printf("ok\t\t%s\n", seen)
	}
}

type moments struct {
	open    func(ctx context.Context, user string) (*Session, error)
	session *Session
	running chan error // the end of the statement that sleeps
}

func (m *moments) obey(ctx context.Context, command, user string) (seen string, err error) {
	switch command {
	case "open":
		m.close()
		m.session, err = m.open(ctx, user)
		return "", err
	case "try":
		other, err := m.open(ctx, user)
		if err != nil {
			return "", err
		}
		defer other.Close()
		return other.Do(ctx, "select 'in'")
	case "ask":
		return m.session.Do(ctx, "select 'in'")
	case "sleep":
		go func(s *Session) {
			_, err := s.Do(context.Background(), "select 'slept' from pg_sleep(120)")
			m.running <- err
		}(m.session)
		return "", nil
	case "cancel":
		if err := m.session.Cancel(ctx); err != nil {
			return "", err
		}
		return "it was not cancelled", <-m.running
	case "close":
		m.close()
		return "", nil
	}
	return "", fmt.Errorf("no such command: %s", command)
}

func (m *moments) close() {
	if m.session != nil {
		m.session.Close()
		m.session = nil
	}
}
