package printable_test

import (
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"pgwicket/internal/printable"
)

func TestText(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"":                     "",
		"plain \"äöü\"":        "plain \"äöü\"",
		"a\x1b[2Jb\u202ec\x7f": `a\x1b[2Jb\u202ec\x7f`,
		`a\x1b`:                `a\\x1b`,
		"\xff\u0085\"":         `\xff\u0085"`,
	} {
		if got := printable.Text(in); got != want {
			t.Errorf("Text(%q) is %q, want %q", in, got, want)
		}
	}
}

// What is cut has a bound and stays UTF-8.
func TestCut(t *testing.T) {
	t.Parallel()
	if got, want := printable.Short(strings.Repeat("ü", 10), 5), "üü... (20 bytes)"; !strings.HasPrefix(got, "üü") || !strings.HasSuffix(got, "... (20 bytes)") {
		t.Errorf("%q, want %q", got, want)
	}
	if got := printable.Short("short", 5); got != "short" {
		t.Errorf("%q was cut", got)
	}
	got := printable.Excerpt(strings.Repeat("\x00ü", 100), 50)
	if len(got) > 50+len("…") || !utf8.ValidString(got) || !strings.HasSuffix(got, "…") {
		t.Errorf("%d bytes: %q", len(got), got)
	}
	if got, want := printable.List([]string{"a", "b\n", "c", "d"}, 2, 9), []string{"a", `b\n`, "and 2 more"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
