package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"pgwicket/test/gate"
)

// profiles takes CPU profiles of pgwicket under each of these loads, again and
// again, each from the moment a meter starts until it stops.
func (l *lab) profiles(ctx context.Context, loads []scenario, times int, d time.Duration) (files map[string][]string, err error) {
	binary, err := l.variant(ctx, profiled)
	if err != nil {
		return nil, err
	}
	out, dirs := series{Scenario: "profile"}, map[string]string{}
	var field []candidate
	for _, sc := range loads {
		dir, err := os.MkdirTemp(l.dir, "profiles-")
		if err != nil {
			return nil, err
		}
		c := tuned(sc.ID, sc.Title, func(s *setting) {
			s.binary, s.env = binary, []string{"BENCH_PROFILES=" + dir}
			s.extra = map[string]string{"landlock": "false"} // it writes the profiles
		})
		c.marks = true
		sc.burst = untilProfiled(dir, sc.burst)
		field, dirs[sc.ID] = append(field, candidate{c, sc}), dir
	}
	if err := l.compete(ctx, &out, field, times, d); err != nil {
		return nil, err
	}
	files = map[string][]string{}
	for id, dir := range dirs {
		if why := out.Failed[id]; why != "" {
			return nil, fmt.Errorf("profile of %s: %s", id, why)
		}
		files[id] = written(dir)
	}
	return files, nil
}

func written(dir string) []string {
	files, _ := filepath.Glob(filepath.Join(dir, "*.pprof"))
	return files
}

// untilProfiled waits after a burst for the gate to write its profile, which takes
// it some tenths of a second.
func untilProfiled(dir string, of burst) burst {
	return func(ctx context.Context, l *lab, g *endpoint, d time.Duration) (sample, error) {
		before := len(written(dir))
		s, err := of(ctx, l, g, d)
		if err != nil {
			return s, err
		}
		for end := time.Now().Add(gate.Timeout); len(written(dir)) == before; time.Sleep(10 * time.Millisecond) {
			if ctx.Err() != nil || time.Now().After(end) {
				return s, errors.New("no profile has been written")
			}
		}
		return s, nil
	}
}

// traces prints profiles as stacks, all together.
func traces(ctx context.Context, files []string) (string, error) {
	out, err := exec.CommandContext(ctx, "go", append([]string{"tool", "pprof", "-traces", "-unit=ms"}, files...)...).Output()
	if err != nil {
		return "", fmt.Errorf("go tool pprof: %w", err)
	}
	return string(out), nil
}
