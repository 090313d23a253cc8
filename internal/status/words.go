package status

import (
	"fmt"
	"strconv"
	"time"
)

// number formats n with commas between groups of three digits.
func number[N int | uint64](n N) string {
	digits := strconv.FormatUint(uint64(max(n, 0)), 10)
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}

func plural(n int, word string) string {
	if n == 1 {
		return "1 " + word
	}
	return number(n) + " " + word + "s"
}

// span formats a duration in its largest useful unit.
func span(d time.Duration) string {
	switch d = d.Abs(); {
	case d < time.Minute:
		return plural(int(d.Seconds()), "second")
	case d < time.Hour:
		return plural(int(d.Minutes()), "minute")
	case d < 48*time.Hour:
		return plural(int(d.Hours()), "hour")
	}
	return plural(int(d.Hours()/24), "day")
}

// ago formats t relative to now, in the past or the future.
func ago(t, now time.Time) string {
	if t.After(now) {
		return "in " + span(t.Sub(now))
	}
	return span(now.Sub(t)) + " ago"
}

// expires describes an expiry time relative to now.
func expires(t, now time.Time) string {
	if t.After(now) {
		return "expires in " + span(t.Sub(now))
	}
	return "expired " + ago(t, now)
}

func moment(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }
func date(t time.Time) string   { return t.UTC().Format(time.DateOnly) }

// clock formats the time of day, with the date if it is not today.
func clock(t, now time.Time) string {
	if date(t) == date(now) {
		return t.UTC().Format(time.TimeOnly)
	}
	return t.UTC().Format(time.DateTime)
}

// why describes the trigger of a load.
func why(trigger string) string {
	switch trigger {
	case "start":
		return "at the start"
	case "signal":
		return "after a signal"
	case "files":
		return "because files changed"
	case "command":
		return `by "pgwicket reload"`
	}
	return fmt.Sprintf("by %q", trigger)
}
