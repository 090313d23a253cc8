package phrase

import (
	"fmt"
	"testing"
	"time"
)

func TestCount(t *testing.T) {
	t.Parallel()
	for want, got := range map[string]string{
		"0 days": Count(0, "day"), "1 day": Count(1, "day"), "-1 day": Count(-1, "day"), "2 days": Count(2, "day"),
		"1 entry": Count(1, "entry"), "2 entries": Count(2, "entry"),
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestUntil(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)
	if got, want := Until(now.Add(49*time.Hour), now), "2026-02-02 13:00 UTC (2 days)"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestShorten(t *testing.T) {
	t.Parallel()
	var names []string
	for i := range 12 {
		names = append(names, fmt.Sprint(i))
	}
	if got := fmt.Sprint(Shorten(names), len(names), Shorten(names[:10]), Shorten(nil)); got !=
		"[0 1 2 3 4 5 6 7 8 9 and 2 more] 12 [0 1 2 3 4 5 6 7 8 9] []" {
		t.Error(got)
	}
}
