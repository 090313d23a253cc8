// Command bench measures pgwicket side by side with its peers: PgBouncer,
// stunnel, HAProxy, PostgreSQL's own TLS, a plain Go proxy and a forwarder
// without TLS, all on this machine and over loopback only.
//
//	make bench-peers         every scenario, tables and pictures
//	make bench-quick         CPU per transaction against PgBouncer, for CI
//	make bench-scale         how pgwicket's own cost grows, and where the time goes
//	bin/bench report FILE    tables and pictures again, from raw data
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"pgwicket/test/harness"
)

// options are the flags of peers and quick.
type options struct {
	pgwicket   string
	other      string
	rounds     int
	burst      time.Duration
	copyMiB    int
	idle       []int
	most       int // sessions that the limit of open files allows; 0: not known yet
	settle     time.Duration
	scenarios  string
	contenders string
	json       string
	install    bool
	page       page
}

// page says where the report goes besides standard output.
type page struct {
	into   string // the Markdown file with the generated block, or nowhere
	images string // the directory of the pictures
}

func main() {
	os.Exit(harness.Main("bench", run)) //nolint:forbidigo // this is main
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	if len(args) == 0 {
		return errors.New("missing command: peers, quick, scale or report FILE")
	}
	switch args[0] {
	case "peers":
		o, err := parse("peers", args[1:], stderr)
		if err != nil {
			return ignoreHelp(err)
		}
		return peers(ctx, o, stdout, stderr)
	case "quick":
		o, err := parse("quick", args[1:], stderr)
		if err != nil {
			return ignoreHelp(err)
		}
		return quick(ctx, o, stdout, stderr)
	case "scale":
		o, chosen, err := parseScale(args[1:], stderr)
		if err != nil {
			return ignoreHelp(err)
		}
		return scale(ctx, o, chosen, stdout, stderr)
	case "report":
		return again(args[1:], stdout, stderr)
	}
	return fmt.Errorf("there is no %q, only peers, quick, scale and report FILE", args[0])
}

func ignoreHelp(err error) error {
	if errors.Is(err, flag.ErrHelp) {
		return nil
	}
	return err
}

func parse(name string, args []string, stderr io.Writer) (o options, err error) {
	f := flag.NewFlagSet(name, flag.ContinueOnError)
	f.SetOutput(stderr)
	rounds, burst, scenarios, contenders := 7, 2*time.Second, "", ""
	if name == "quick" {
		// 2 scenarios, 4 contenders: under three minutes.
		rounds, burst, scenarios, contenders = 6, time.Second, "select-8,select-32", "pgbouncer,stunnel,pgwicket,control"
	}
	f.StringVar(&o.pgwicket, "pgwicket", "", "the binary to measure (default: build ./cmd/pgwicket)")
	f.StringVar(&o.other, "other", "", "another binary of pgwicket, as a contender of its own")
	f.IntVar(&o.rounds, "rounds", rounds, "rounds of each scenario; idle memory takes 3 at most")
	f.DurationVar(&o.burst, "burst", burst, "how long one contender is measured in one round")
	f.IntVar(&o.copyMiB, "copy-mib", 1024, "size of a COPY, MiB")
	idle := f.String("idle", "1000,10000", "numbers of idle sessions")
	f.DurationVar(&o.settle, "settle", 5*time.Second, "how long idle sessions rest before memory is read")
	f.StringVar(&o.scenarios, "scenarios", scenarios, "these only, with commas (a name or the beginning of names)")
	f.StringVar(&o.contenders, "contenders", contenders, "these only, with commas")
	f.StringVar(&o.json, "json", "", "write the raw data to this file, after every scenario")
	f.BoolVar(&o.install, "install", true, "as root, install the peers that are missing with apt-get")
	o.page.flags(f)
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if f.NArg() > 0 {
		return o, fmt.Errorf("unexpected %q", f.Arg(0))
	}
	for s := range strings.SplitSeq(*idle, ",") {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 {
			return o, fmt.Errorf("--idle: %q is no number of sessions", s)
		}
		o.idle = append(o.idle, n)
	}
	return o, nil
}

func (p *page) flags(f *flag.FlagSet) {
	f.StringVar(&p.into, "into", "", "replace the generated block of this Markdown file")
	f.StringVar(&p.images, "images", "docs/img", "with --into: the directory of the pictures")
}

// peers runs everything that was chosen and reports it.
func peers(ctx context.Context, o options, stdout, stderr io.Writer) error {
	r, err := measure(ctx, o, stderr)
	if err != nil {
		return err
	}
	if err := r.report(stdout, o.page); err != nil {
		return err
	}
	return r.unmeasured()
}

// quick fails when pgwicket costs more than PgBouncer, so that CI sees it.
func quick(ctx context.Context, o options, stdout, stderr io.Writer) error {
	r, err := measure(ctx, o, stderr)
	if err != nil {
		return err
	}
	if err := r.report(stdout, o.page); err != nil {
		return err
	}
	return errors.Join(r.unmeasured(), r.judgeQuick(stdout))
}

func again(args []string, stdout, stderr io.Writer) error {
	f := flag.NewFlagSet("report", flag.ContinueOnError)
	f.SetOutput(stderr)
	var p page
	p.flags(f)
	if err := f.Parse(args); err != nil {
		return ignoreHelp(err)
	}
	if f.NArg() != 1 {
		return errors.New("report: name the one file that --json has written, after the flags")
	}
	b, err := os.ReadFile(f.Arg(0))
	if err != nil {
		return err
	}
	var r results
	if err := json.Unmarshal(b, &r); err != nil {
		return fmt.Errorf("%s: %w", f.Arg(0), err)
	}
	return r.report(stdout, p)
}
