package report_test

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"pgwicket/internal/doctor/report"
	"pgwicket/internal/golden"
)

var noon = time.Date(2026, 11, 26, 12, 0, 0, 5, time.UTC)

func object(name string) report.Object {
	return report.Object{Database: "shop", Name: "shop." + name, Connect: `\connect shop`, Fix: "revoke all on " + name + " from public;"}
}

// sample returns a report with a finding of each status.
func sample(objects ...report.Object) report.Report {
	stamp := func(f report.Finding, check string, heading report.Heading) report.Finding {
		f.Group, f.Subject, f.Check, f.Heading, f.Why = "postgresql", "/run/x", check, heading, "It matters."
		return f
	}
	all := []report.Finding{
		stamp(report.Passed("is <well> & good"), "one", report.Log),
		stamp(report.New(report.Note, "log_hostname", "is on", "off"), "two", report.Log),
		stamp(report.New(report.Skip, "", "permission denied", "connect as a superuser"), "three", report.Roles),
		stamp(report.New(report.Fail, "pg_hba.conf:1", "trust", "peer"), "four", report.Authentication),
	}
	if objects != nil {
		all = append(all, stamp(report.NewList(report.Warn, report.List{Reason: "every role may read {}", Objects: objects, After: "-- done"}), "five", report.DataAccess))
	}
	return report.Report{Config: "pgwicket.yaml", Time: noon, Findings: all}
}

// Programs read this, so its form must not change.
func TestJSON(t *testing.T) {
	t.Parallel()
	r := sample(object("public.a"), object("public.b"))
	r.Findings = append(r.Findings[:1], r.Findings[4])
	var out bytes.Buffer
	err := r.WriteJSON(&out)
	const want = `{
  "config": "pgwicket.yaml",
  "time": "2026-11-26T12:00:00Z",
  "worst": "warn",
  "counts": {
    "fail": 0,
    "note": 0,
    "pass": 1,
    "skip": 0,
    "waived": 0,
    "warn": 1
  },
  "findings": [
    {
      "group": "postgresql",
      "subject": "/run/x",
      "check": "one",
      "heading": "log",
      "status": "pass",
      "reason": "is <well> & good",
      "why": "It matters."
    },
    {
      "group": "postgresql",
      "subject": "/run/x",
      "check": "five",
      "heading": "data access",
      "status": "warn",
      "severity": "medium",
      "reason": "every role may read shop.public.a, shop.public.b",
      "why": "It matters.",
      "objects": [
        "shop.public.a",
        "shop.public.b"
      ],
      "count": 2,
      "fix": "\\connect shop\nrevoke all on public.a from public;\nrevoke all on public.b from public;\n-- done"
    }
  ]
}
`
	if out.String() != want || err != nil {
		t.Errorf("%v:\n%s", err, out.String())
	}
}

func TestText(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	if err := sample(object("public.a")).WriteText(&out, false); err != nil {
		t.Fatal(err)
	}
	const want = `postgresql /run/x
  FAIL  four                 trust
                             where  pg_hba.conf:1
                             why    It matters.
                             fix    peer
  WARN  five                 every role may read shop.public.a
                             why    It matters.
                             fix    \connect shop
                                    revoke all on public.a from public;
                                    -- done
  NOTE  two                  is on
                             where  log_hostname
                             fix    off
  SKIP  three                permission denied
                             fix    connect as a superuser

1 passed, 1 note, 1 warning, 1 failure, 1 skipped
`
	if out.String() != want {
		t.Errorf("\n%s", out.String())
	}
	out.Reset()
	if err := sample().WriteText(&out, true); err != nil || !strings.Contains(out.String(), "  PASS  one                  is <well> & good\n") {
		t.Errorf("%v:\n%s", err, out.String())
	}
}

func TestWorst(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		of   []report.Status
		want report.Status
	}{
		{nil, report.Pass},
		{[]report.Status{report.Pass, report.Skip}, report.Skip},
		{[]report.Status{report.Pass, report.Note, report.Skip}, report.Note},
		{[]report.Status{report.Pass, report.Warn, report.Note}, report.Warn},
		{[]report.Status{report.Fail, report.Warn, report.Skip}, report.Fail},
	} {
		var r report.Report
		for _, s := range c.of {
			r.Findings = append(r.Findings, report.Finding{Status: s})
		}
		if got := r.Worst(); got != c.want {
			t.Errorf("%v: %s", c.of, got)
		}
	}
}

// A finding names ten objects, and counts all.
func TestMaxNames(t *testing.T) {
	t.Parallel()
	var objects []report.Object
	for i := range 12 {
		objects = append(objects, report.Object{Name: fmt.Sprint("t", i), Fix: "fix"})
	}
	f := report.NewList(report.Warn, report.List{Reason: "{}", Objects: objects, More: 988})
	if len(f.Objects) != 10 || f.Count != 1000 || !strings.HasSuffix(f.Reason, "t9 and 990 more") || !strings.HasSuffix(f.Fix, "-- and 990 more: run doctor again after this") {
		t.Errorf("%+v", f)
	}
}

func TestParseWaiver(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"pgaudit=not here":                           "pgaudit|not here|0001-01-01",
		"four:pg_hba.conf:1=one, two,2027-01-31":     "four:pg_hba.conf:1|one, two|2027-01-31",
		`five:shop.public."a=b"=because = so`:        `five:shop.public."a=b"|because = so|0001-01-01`,
		"five=no date,2027-13-01":                    "five|no date,2027-13-01|0001-01-01",
		"five:shop.public.a = spaces , 2027-01-31  ": "five:shop.public.a |spaces|2027-01-31",
	} {
		w, err := report.ParseWaiver(text)
		if got := w.String() + "|" + w.Reason + "|" + w.Until.Format(time.DateOnly); err != nil || got != want {
			t.Errorf("%s: %s, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "five", "five=", "five= ", "=reason", "five=,2027-01-31", "five:=reason", "five:=reason,2027-01-31"} {
		if w, err := report.ParseWaiver(text); err == nil {
			t.Errorf("%q: %+v", text, w)
		}
	}
	all, err := report.ParseWaivers("# why\n\npgaudit=no\n  four=yes\n")
	if err != nil || len(all) != 2 {
		t.Errorf("%v, %v", all, err)
	}
	if _, err := report.ParseWaivers("pgaudit=no\nbad\n"); err == nil || !strings.Contains(err.Error(), "line 2") {
		t.Error(err)
	}
}

func TestWaive(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		waiver string
		worst  report.Status // of what is left
		waived int
		text   string // in the text of the report
	}{
		{"four=because", report.Warn, 1, "waived\n  four                      because\n"},
		{"four:pg_hba.conf:1=because,2026-11-26", report.Warn, 1, "because (until 2026-11-26)"},
		{"four:pg_hba.conf:2=because", report.Fail, 0, "the waiver of four:pg_hba.conf:2 matches nothing (because)"},
		{"four=because,2026-11-25", report.Fail, 0, "the waiver of four ended on 2026-11-25 (because)"},
		{"five:shop.public.a=because", report.Fail, 1, "every role may read shop.public.b\n"},
		{"seven:host all all 10.0.0.0/8 trust=because", report.Fail, 1, "because"},
		{`seven:"host all ""a=b"" 10.0.0.0/8 trust"=because`, report.Fail, 1, "because"},
		{"seven:pg_hba.conf:8=because", report.Fail, 0, "names a line by its number"},
		{"seven:pg_hba.conf:9=because", report.Fail, 0, `write seven:"host all ""a=b"" 10.0.0.0/8 trust"=because`},
		{"seven:host all all 10.0.0.0/9 trust=because", report.Fail, 0, "matches nothing"},
		{"seven=because", report.Fail, 2, "because"},
		{"one=because", report.Fail, 0, "matches nothing"},
		{"three=because", report.Fail, 0, "matches nothing"},
	} {
		w, err := report.ParseWaiver(c.waiver)
		if err != nil {
			t.Fatal(err)
		}
		r := sample(object("public.a"), object("public.b"))
		for line, text := range map[string]string{"8": "host all all 10.0.0.0/8 trust", "9": `host all "a=b" 10.0.0.0/8 trust`} {
			f := report.New(report.Fail, "pg_hba.conf:"+line, text, "").WithName(text)
			f.Group, f.Check = "postgresql", "seven"
			if w.Check == f.Check {
				r.Findings = append(r.Findings, f)
			}
		}
		r.Waive([]report.Waiver{w})
		var out bytes.Buffer
		if err := r.WriteText(&out, false); err != nil {
			t.Fatal(err)
		}
		if r.Worst() != c.worst || r.Count(report.Waived) != c.waived || !strings.Contains(out.String(), c.text) {
			t.Errorf("%s: worst %s, %d waived:\n%s", c.waiver, r.Worst(), r.Count(report.Waived), out.String())
		}
	}
	r := sample(object("public.a"))
	r.Waive([]report.Waiver{{Check: "five", Object: "shop.public.a", Reason: "x"}})
	if r.Count(report.Warn) != 0 || r.Count(report.Waived) != 1 || len(r.Findings) != 5 {
		t.Errorf("%+v", r.Findings)
	}
}

func TestChanges(t *testing.T) {
	t.Parallel()
	var text bytes.Buffer
	if err := sample(object("public.a"), object("public.b")).WriteJSON(&text); err != nil {
		t.Fatal(err)
	}
	old, err := report.Read(text.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	changes := func(r report.Report) string {
		var out bytes.Buffer
		if err := r.WriteChanges(&out, old); err != nil {
			t.Fatal(err)
		}
		return out.String()
	}
	if got := changes(sample(object("public.a"), object("public.b"))); !strings.HasPrefix(got, "0 changes since 2026-11-26T12:00:00Z\n") {
		t.Error(got)
	}
	now := sample(object("public.b"), object("public.c"))
	now.Findings = append(now.Findings[:3], now.Findings[4], report.New(report.Warn, "ssl", "is off", "on"))
	now.Findings[4].Check = "six"
	const want = `changed
  WARN  five                 new: shop.public.c; gone: shop.public.a; 2 before, 2 now
new
  WARN  six                  is off
                             where  ssl
                             fix    on
gone
  FAIL  four                 trust

3 changes since 2026-11-26T12:00:00Z
1 passed, 1 note, 2 warnings, 0 failures, 1 skipped
`
	if got := changes(now); got != want {
		t.Errorf("\n%s", got)
	}
	for _, text := range []string{"", "[]", "{}", `{"findings":[]}`} {
		if r, err := report.Read([]byte(text)); err == nil {
			t.Errorf("%q: %+v", text, r)
		}
	}
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	r := sample(object("public.a"), object("public.b"))
	r.Findings[3].Subject = "a \"b\"\\\n"
	var out bytes.Buffer
	if err := r.WriteMetrics(&out); err != nil {
		t.Fatal(err)
	}
	golden.File(t, "testdata/metrics.txt", out.String()) // deploy/prometheus/test reads it, too
}

// The page needs nothing else, and no text of a finding is markup.
func TestHTML(t *testing.T) {
	t.Parallel()
	evil := `</pre><script>alert(1)</script>"'&`
	r := sample(report.Object{Name: evil, Fix: evil})
	r.Findings[3].Where, r.Findings[3].Subject, r.Config = evil, evil, evil
	r.Waive([]report.Waiver{{Check: "two", Reason: evil}})
	var out bytes.Buffer
	if err := r.WriteHTML(&out); err != nil {
		t.Fatal(err)
	}
	page := out.String()
	if m := regexp.MustCompile(`(?i)<script|<link|<img|<iframe|\son[a-z]+=|url\(|@import|https?:`).FindString(page); m != "" {
		t.Errorf("the page has %q", m)
	}
	for _, want := range []string{"&lt;/pre&gt;&lt;script&gt;", `<li class="fail"><span>authentication</span><b>1 failure</b></li>`, `<li class="pass"><span>firewall</span><b>nothing open</b></li>`, "Waived", "Not examined", "prefers-color-scheme: dark", "@media print"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page has no %q", want)
		}
	}
	if strings.Count(page, "<article") != strings.Count(page, "</article>") || strings.Count(page, "<pre>") != strings.Count(page, "</pre>") {
		t.Error("the page is not balanced")
	}
}
