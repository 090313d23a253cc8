package acl_test

import (
	"strings"
	"testing"
	"time"

	"pgwicket/acl"
)

func moment(t testing.TB, text string) time.Time {
	t.Helper()
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

// Each line is when a rule is in force, a moment, and whether it matches then. In 2027,
// January 29 is a Friday; summer time in Zurich begins on March 28 at 01:00 UTC and ends
// on October 31 at 01:00 UTC.
func TestRuleTimes(t *testing.T) {
	t.Parallel()
	in, out := true, false
	const (
		zurich = ", timezone: Europe/Zurich"
		utc    = ", timezone: UTC"
	)
	for _, c := range []struct {
		rule, at string
		want     bool
	}{
		{`from: "2027-01-29T08:00:00Z"`, "2027-01-29T07:59:59Z", out},
		{`from: "2027-01-29T08:00:00Z"`, "2027-01-29T08:00:00Z", in},
		{`from: "2027-01-29T08:00:00+01:00"`, "2027-01-29T07:00:00Z", in},
		{`until: "2027-01-29T08:00:00Z"`, "2027-01-29T07:59:59Z", in},
		{`until: "2027-01-29T08:00:00Z"`, "2027-01-29T08:00:00Z", out},
		{`from: "2027-01-29T08:00:00Z", until: "2027-01-29T09:00:00Z"`, "2027-01-29T08:30:00Z", in},
		{`from: "2027-01-29T08:00:00Z", until: "2027-01-29T09:00:00Z"`, "2027-01-29T09:30:00Z", out},
		{"hours: [8-18]" + utc, "2027-01-29T08:00:00Z", in},
		{"hours: [8-18]" + utc, "2027-01-29T07:59:59Z", out},
		{"hours: [8-18]" + utc, "2027-01-29T17:59:59Z", in},
		{"hours: [8-18]" + utc, "2027-01-29T18:00:00Z", out},
		{"hours: [8-18]" + zurich, "2027-01-29T07:00:00Z", in},
		{"hours: [8-18]" + zurich, "2027-01-29T17:00:00Z", out},
		{"hours: [8-18]" + zurich, "2027-07-01T06:00:00Z", in}, // summer time
		{"hours: [8-18]" + zurich, "2027-07-01T16:00:00Z", out},
		{`hours: ["08:30-12:00", "13:15-17:45"]` + utc, "2027-01-29T08:29:59Z", out},
		{`hours: ["08:30-12:00", "13:15-17:45"]` + utc, "2027-01-29T12:30:00Z", out},
		{`hours: ["08:30-12:00", "13:15-17:45"]` + utc, "2027-01-29T13:15:00Z", in},
		{"hours: [0-24]" + utc, "2027-01-29T00:00:00Z", in},
		{"hours: [20-24]" + utc, "2027-01-29T23:59:59Z", in},
		{"hours: [20-24]" + utc, "2027-01-30T00:00:00Z", out},
		{"hours: [22-6]" + utc, "2027-01-29T22:00:00Z", in},
		{"hours: [22-6]" + utc, "2027-01-30T05:59:59Z", in},
		{"hours: [22-6]" + utc, "2027-01-30T06:00:00Z", out},
		{"hours: [22-6]" + utc, "2027-01-30T12:00:00Z", out},
		{"weekdays: [fri], hours: [22-6]" + utc, "2027-01-29T23:00:00Z", in},
		{"weekdays: [fri], hours: [22-6]" + utc, "2027-01-30T03:00:00Z", in}, // of Friday's night
		{"weekdays: [fri], hours: [22-6]" + utc, "2027-01-29T03:00:00Z", out},
		{"weekdays: [fri], hours: [22-6]" + utc, "2027-01-30T23:00:00Z", out},
		{"weekdays: [mon-fri]" + utc, "2027-01-29T12:00:00Z", in},
		{"weekdays: [mon-fri]" + utc, "2027-01-30T12:00:00Z", out},
		{"weekdays: [sat-mon]" + utc, "2027-01-31T12:00:00Z", in},
		{"weekdays: [sat-mon]" + utc, "2027-01-29T12:00:00Z", out},
		{"weekdays: [Friday]" + utc, "2027-01-29T12:00:00Z", in},
		{"weekdays: [fri]" + zurich, "2027-01-28T23:30:00Z", in}, // Friday there
		{"weekdays: [fri]" + zurich, "2027-01-29T23:30:00Z", out},
		{"hours: [2-3]" + zurich, "2027-03-28T00:30:00Z", out}, // 01:30
		{"hours: [2-3]" + zurich, "2027-03-28T01:00:00Z", out}, // 03:00: the hour is skipped
		{"hours: [2-3]" + zurich, "2027-10-31T00:00:00Z", in},  // 02:00, the first time
		{"hours: [2-3]" + zurich, "2027-10-31T01:59:59Z", in},  // 02:59, the second time
		{"hours: [2-3]" + zurich, "2027-10-31T02:00:00Z", out},
	} {
		rules, q, at := newRules(t, "users: [app], "+c.rule), request(t, "app"), moment(t, c.at)
		q.At = at
		if got := rules.Decide(q) != nil; got != c.want {
			t.Errorf("%s matches at %s: %t", c.rule, c.at, got)
		}
		if steps := rules.Trace(q); (steps[0].Mismatch == "") != c.want || !c.want && !strings.Contains(steps[0].Mismatch, "not in force at 2027") {
			t.Errorf("%s at %s: %q", c.rule, c.at, steps[0].Mismatch)
		}
		if q.At = (time.Time{}); rules.Decide(q) != nil {
			t.Errorf("%s matches at no time", c.rule)
		}
	}
}

// NextChange finds each moment at which a minute-by-minute look finds a change, and no
// other, over the days on which the clock changes.
func TestNextChangeOfRules(t *testing.T) {
	t.Parallel()
	for _, rule := range []string{
		"hours: [2-3], timezone: Europe/Zurich",
		`hours: ["01:30-02:30"], timezone: Europe/Zurich`,
		`hours: ["22:15-2:45"], timezone: Europe/Zurich`,
		"hours: [8-18], weekdays: [mon-fri], timezone: America/New_York",
		"weekdays: [sun], timezone: Europe/Zurich",
		`hours: ["1:45-2:15"], timezone: Australia/Lord_Howe`, // its summer time is half an hour
		`from: "2027-03-27T12:00:00Z", until: "2027-03-29T09:30:00Z", hours: [0-3], timezone: Europe/Zurich`,
		"hours: [0-24], timezone: UTC",
	} {
		rules, q := newRules(t, "users: [app], "+rule), request(t, "app")
		holds := func(at time.Time) bool { q.At = at; return rules.Decide(q) != nil }
		for _, start := range []string{"2027-03-27T00:00:00Z", "2027-10-30T00:00:00Z", "2027-04-03T00:00:00Z", "2027-10-02T00:00:00Z", "2027-03-13T00:00:00Z"} {
			at, was := moment(t, start), holds(moment(t, start))
			next := rules.NextChange(at)
			for range 3 * 24 * 60 {
				at = at.Add(time.Minute)
				is := holds(at)
				if is != was && !next.Equal(at) {
					t.Fatalf("%s: it changes at %v, and NextChange said %v", rule, at, next)
				}
				if is == was && next.Equal(at) {
					t.Fatalf("%s: NextChange said %v, and nothing changes", rule, at)
				}
				if is != was {
					next, was = rules.NextChange(at), is
				}
			}
		}
	}
	if !newRules(t, "users: [app]").NextChange(time.Now()).IsZero() || !(*acl.Rules)(nil).NextChange(time.Now()).IsZero() {
		t.Error("rules without times change")
	}
}

// What cannot be meant is a mistake.
func TestRuleTimeMistakes(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ rule, want string }{
		{"hours: [25-3], timezone: UTC", "is not a range of the clock"},
		{"hours: [8-25], timezone: UTC", "is not a range of the clock"},
		{"hours: [24-3], timezone: UTC", "is not a range of the clock"},
		{"hours: [8-8], timezone: UTC", "is not a range of the clock"},
		{`hours: ["8:60-9"], timezone: UTC`, "is not a range of the clock"},
		{`hours: ["24:01-3"], timezone: UTC`, "is not a range of the clock"},
		{`hours: ["8"], timezone: UTC`, "is not a range of the clock"},
		{`hours: ["8-9-10"], timezone: UTC`, "is not a range of the clock"},
		{`hours: ["-8-9"], timezone: UTC`, "is not a range of the clock"},
		{`hours: ["8 - 9"], timezone: UTC`, "is not a range of the clock"},
		{`hours: ["8:5-9"], timezone: UTC`, "is not a range of the clock"},
		{"hours: [], timezone: UTC", "is empty"},
		{"weekdays: [], timezone: UTC", "is empty"},
		{"weekdays: [mo], timezone: UTC", "is not a day"},
		{"weekdays: [mon-], timezone: UTC", "is not a day"},
		{"weekdays: [mon-tue-wed], timezone: UTC", "is not a day"},
		{"hours: [8-18]", "and no timezone"},
		{"weekdays: [mon]", "and no timezone"},
		{"hours: [8-18], timezone: Europe/Zurch", "is not known"},
		{"hours: [8-18], timezone: Local", "is not known"},
		{"hours: [8-18], timezone: ../../etc/passwd", "is not known"},
		{"timezone: UTC", "has no effect without weekdays or hours"},
		{"from: tomorrow", "is not a time"},
		{`until: "2027-02-30T00:00:00Z"`, "is not a time"},
		{`until: "2027-01-31"`, "is not a time"},
		{`from: "2027-01-31T00:00:00Z", until: "2027-01-31T00:00:00Z"`, "could never match"},
		{`from: "2027-02-01T00:00:00Z", until: "2027-01-31T00:00:00Z"`, "could never match"},
	} {
		rules, problems := acl.NewRules(options(t, "users: [app], "+c.rule), listeners, superusers)
		found := false
		for _, p := range problems {
			found = found || strings.Contains(p.Text, c.want) && !p.Warning
		}
		if rules != nil || !found {
			t.Errorf("%s: %v, want %q", c.rule, problems, c.want)
		}
	}
}

func TestRulesThatAreOver(t *testing.T) {
	t.Parallel()
	at := moment(t, "2027-01-29T12:00:00Z") // a Friday
	for _, c := range []struct {
		rule        string
		over, never bool
	}{
		{"", false, false},
		{`until: "2027-01-29T12:00:00Z"`, true, false},
		{`until: "2027-01-29T12:00:01Z"`, false, false},
		{`from: "2028-01-01T00:00:00Z"`, false, false},
		{`until: "2027-01-30T00:00:00Z", weekdays: [sun], timezone: UTC`, false, true},
		{`until: "2027-02-03T00:00:00Z", weekdays: [sun], timezone: UTC`, false, false},
		{`from: "2027-02-01T00:00:00Z", until: "2027-02-01T06:00:00Z", hours: [8-9], timezone: UTC`, false, true},
		{`from: "2027-02-01T00:00:00Z", until: "2027-02-01T08:30:00Z", hours: [8-9], timezone: UTC`, false, false},
		{"hours: [0-1], timezone: UTC", false, false},
	} {
		rule := newRules(t, strings.TrimSuffix("users: [app], "+c.rule, ", ")).All()[0]
		if rule.Over(at) != c.over || rule.Never(at) != c.never {
			t.Errorf("%s: over %t, never %t", c.rule, rule.Over(at), rule.Never(at))
		}
	}
}

// A rule with times does not hide one that matches at other times.
func TestTimesAndShadows(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		first, second string
		shadowed      bool
	}{
		{"users: [app]", "users: [app], hours: [8-18], timezone: UTC", true},
		{"users: [app], hours: [8-18], timezone: UTC", "users: [app]", false},
		{"users: [app], hours: [8-18], timezone: UTC", "users: [app], hours: [8-18], timezone: UTC", true},
		{"users: [app], hours: [8-18], timezone: UTC", "users: [app], hours: [9-10], timezone: UTC", false},
	} {
		if got := len(newRules(t, c.first, c.second).Shadowed()) > 0; got != c.shadowed {
			t.Errorf("%s hides %s: %t", c.first, c.second, got)
		}
	}
}
