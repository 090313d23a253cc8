package main

import (
	"errors"
	"strings"
	"testing"

	"pgwicket/config"
	"pgwicket/internal/budget"
	"pgwicket/proxy"
)

// A full gate that needs more memory than its control group allows is a warning.
func TestMemoryProblems(t *testing.T) {
	t.Parallel()
	full, _ := budget.Of(1000, 2000)
	for _, c := range []struct {
		startups, sessions int
		limit              int64
		err                error
		want               string // of the warning; empty: there is none
	}{
		{1000, 2000, 0, nil, ""},
		{1000, 2000, full.Total, nil, ""},
		{1000, 2000, full.Total - 1, nil, "lower max_connections"},
		{1000, 0, 0, nil, ""},
		{1000, 0, 1 << 40, nil, "is 0"},
		{0, 2000, 1 << 40, nil, "is 0"},
		{1000, 2000, 0, errors.New("no number"), "no number"},
	} {
		cfg := new(config.Config)
		cfg.Policy = &proxy.Policy{Limits: proxy.Limits{Startups: c.startups, Sessions: c.sessions}}
		got := memoryProblems(cfg, "pgwicket.yaml", c.limit, c.err)
		switch {
		case c.want == "" && len(got) > 0:
			t.Errorf("%+v: %v", c, got)
		case c.want != "" && (len(got) != 1 || !got[0].Warning || !strings.Contains(got[0].Text, c.want)):
			t.Errorf("%+v: %v, want a warning with %q", c, got, c.want)
		}
	}
}
