// Package phrase words numbers, dates and lists the same way in every command,
// log line and page. It imports nothing of pgwicket.
package phrase

import (
	"fmt"
	"time"
)

// Count returns a number with its noun, in the plural where that is due. It knows
// the regular plural and that of "entry".
func Count(n int, noun string) string {
	switch {
	case n == 1 || n == -1:
		return fmt.Sprintf("%d %s", n, noun)
	case noun == "entry":
		return fmt.Sprintf("%d entries", n)
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// Until returns a time to the minute, in UTC, and the whole days from now until then.
func Until(t, now time.Time) string {
	days := int(t.Sub(now).Hours() / 24)
	return fmt.Sprintf("%s (%s)", t.UTC().Format("2006-01-02 15:04 MST"), Count(days, "day"))
}

// Shorten returns at most ten names, and then how many more there are: a directory
// may hold thousands.
func Shorten(names []string) []string {
	const limit = 10
	if len(names) > limit {
		return append(names[:limit:limit], fmt.Sprintf("and %d more", len(names)-limit))
	}
	return names
}
