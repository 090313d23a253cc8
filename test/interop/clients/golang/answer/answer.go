// Package answer is what the clients in Go have in common: how they are asked,
// and how they answer.
package answer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"time"
)

// Feature returns what the client has seen of it.
type Feature func(context.Context) (string, error)

type lacks string

func (l lacks) Error() string { return string(l) }

// Lacks is a feature that the client does not have.
func Lacks(why string) Feature {
	return func(context.Context) (string, error) { return "", lacks(why) }
}

// DSN is the connection string in libpq's words, with more.
func DSN(more string) string {
	return fmt.Sprintf("host=%s port=%s dbname=postgres user=app password='%s' sslmode=verify-full sslrootcert=%s connect_timeout=90 %s",
		os.Getenv("INTEROP_HOST"), os.Getenv("INTEROP_PORT"), os.Getenv("INTEROP_PASSWORD"), os.Getenv("INTEROP_CA"), more)
}

// Certificate is what the user of the client certificate adds to DSN.
func Certificate() string {
	return fmt.Sprintf("user=cert_user sslcert=%s sslkey=%s", os.Getenv("INTEROP_CERT"), os.Getenv("INTEROP_KEY"))
}

// Number reads a variable of the environment.
func Number(name string) int {
	n, _ := strconv.Atoi(os.Getenv(name))
	return n
}

// Idle waits for as long as an idle session shall be idle.
func Idle() { time.Sleep(time.Duration(Number("INTEROP_IDLE")) * time.Second) }

// Asleep waits until the query of a session sleeps, for a request that comes
// before the query cancels nothing. count returns what a query gives.
func Asleep(pid string, count func(sql string) (string, error)) error {
	for range 200 {
		n, err := count("select count(*)::text from pg_stat_activity where pid = " + pid + " and wait_event = 'PgSleep'")
		if err != nil || n == "1" {
			return err
		}
		time.Sleep(50 * time.Millisecond)
	}
	return errors.New("the query does not begin")
}

// Main answers for the features that the arguments name. module is the client's.
func Main(name, module string, all map[string]Feature) {
	version := "?"
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, d := range info.Deps {
			if d.Path == module {
				version = d.Version
			}
		}
	}
	fmt.Printf("version\t%s %s\n", name, version)
	for _, feature := range os.Args[1:] {
		state, seen := answer(all, feature)
		fmt.Printf("%s\t%s\t%s\n", feature, state, seen)
	}
}

func answer(all map[string]Feature, name string) (state, seen string) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute+time.Duration(Number("INTEROP_IDLE"))*time.Second)
	defer cancel()
	f, known := all[name]
	if !known {
		f = Lacks("the driver does not know it")
	}
	seen, err := f(ctx)
	var l lacks
	switch {
	case errors.As(err, &l):
		return "unsupported", err.Error()
	case err != nil:
		// Ports differ between the two ways.
		return "error", strings.ReplaceAll(strings.Join(strings.Fields(err.Error()), " "), os.Getenv("INTEROP_PORT"), "PORT")
	}
	return "ok", seen
}
