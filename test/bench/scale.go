package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// part is one of the measurements of scale.
type part struct {
	name string
	run  func(context.Context, *lab, options, *results) error
}

func parts() []part {
	return []part{
		{"idle", figurePart(idleFigure, 3)}, // each round opens some 16,000 sessions
		{"size", figurePart(answers, 0)},
		{"lists", figurePart(listsFigure, 0)},
		{"loops", figurePart(loops, 0)},
		{"runtime", tune},
		{"profile", profileLoads},
	}
}

// figurePart draws one figure, in so many rounds at most, if not 0.
func figurePart(design func(context.Context, *lab, options) (figure, error), most int) func(context.Context, *lab, options, *results) error {
	return func(ctx context.Context, l *lab, o options, r *results) error {
		f, err := design(ctx, l, o)
		if err != nil {
			return err
		}
		rounds := o.rounds
		if most > 0 {
			rounds = min(rounds, most)
		}
		if err := l.draw(ctx, &f, rounds, o.burst); err != nil {
			return err
		}
		r.Figures = append(r.Figures, f)
		return nil
	}
}

func parseScale(args []string, stderr io.Writer) (o options, chosen []part, err error) {
	o.copyMiB, o.settle = 512, 5*time.Second
	f := flag.NewFlagSet("scale", flag.ContinueOnError)
	f.SetOutput(stderr)
	only := f.String("only", "", "these only, with commas: "+strings.Join(partNames(), ", "))
	f.IntVar(&o.rounds, "rounds", 6, "rounds of each measurement; idle takes 3 at most")
	f.DurationVar(&o.burst, "burst", time.Second, "how long one point is measured in one round")
	f.StringVar(&o.json, "json", "", "write the raw data to this file, after every part")
	f.BoolVar(&o.install, "install", true, "as root, install PostgreSQL with apt-get if it is missing")
	o.page.flags(f)
	if err := f.Parse(args); err != nil {
		return o, nil, err
	}
	if f.NArg() > 0 {
		return o, nil, fmt.Errorf("unexpected %q", f.Arg(0))
	}
	chosen, err = chooseParts(*only)
	return o, chosen, err
}

func partNames() (names []string) {
	for _, p := range parts() {
		names = append(names, p.name)
	}
	return names
}

func chooseParts(only string) ([]part, error) {
	if only == "" {
		return parts(), nil
	}
	want := strings.Split(only, ",")
	for _, w := range want {
		if !slices.Contains(partNames(), w) {
			return nil, fmt.Errorf("--only: there is no %q, only %s", w, strings.Join(partNames(), ", "))
		}
	}
	return slices.DeleteFunc(parts(), func(p part) bool { return !slices.Contains(want, p.name) }), nil
}

// scale measures how pgwicket's cost grows, and where the time goes.
func scale(ctx context.Context, o options, chosen []part, stdout, stderr io.Writer) (err error) {
	if o.most, err = raiseFiles(20_000); err != nil {
		return err
	}
	alone := []contender{pgwicket("pgwicket", "pgwicket")}
	l, err := newLab(ctx, o, alone, stderr)
	if err != nil {
		return err
	}
	defer l.remove()
	r := &results{Machine: describe(l, alone)}
	for _, p := range chosen {
		if err := p.run(ctx, l, o, r); err != nil {
			return err
		}
		if err := r.save(o.json); err != nil {
			return err
		}
	}
	if err := r.report(stdout, o.page); err != nil {
		return err
	}
	return r.unmeasured()
}

// scaling is the report of the figures and the settings.
func (r *results) scaling(images string) string {
	var b bytes.Buffer
	r.Machine.introduce(&b)
	fmt.Fprint(&b, "All of it is pgwicket alone. A number is the median of the rounds, with its quartiles; a ratio is taken inside each round.\n\n")
	for _, f := range r.Figures {
		f.section(&b, images)
	}
	r.tuning(&b)
	return b.String()
}
