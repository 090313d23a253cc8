package main

import (
	"context"
	"fmt"
	"os/signal"
	"syscall"
)

const demoHelp = `Make a throw-away CA, certificates and a revocation list, start a throw-away
PostgreSQL that listens on a Unix socket only, put a gate in front of it, and
show with psql who gets in and who does not, as the client sees it and as the
log says it. Then stay up for you to try, until Ctrl-C removes everything.

PostgreSQL's programs (initdb, postgres, psql) must be installed. Nothing of
an existing PostgreSQL is touched.

Exit status: 0 every line of the story came out as it should, 1 one did not.
`

func demo(args []string, s streams) int {
	f := flags("demo")
	once := f.Bool("once", false, "exit after the story")
	if status, ok := parse(f, args, s); !ok {
		return status
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	st, err := newStage(ctx, s.out)
	if err != nil {
		fmt.Fprintf(s.err, "pgwicket demo: %v\n", err)
		return exitFailed
	}
	defer st.remove()
	if !st.play(ctx) {
		return exitFailed
	}
	if *once {
		return exitOK
	}
	st.invite()
	<-ctx.Done()
	fmt.Fprintln(s.out, "\nremoving everything")
	return exitOK
}
