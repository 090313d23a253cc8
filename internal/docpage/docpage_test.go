//go:build unix

package docpage

import "testing"

func TestMatches(t *testing.T) {
	for _, c := range []struct {
		out, shown string
		want       bool
	}{
		{"a\nb\n", "a\nb", true},
		{"a  \nb", "a\nb", true},
		{"a\nb\nc", "a\n…\nc", true},
		{"until 2030 (3 days)", "until … (3 days)", true},
		{"a\nb\nc", "a\nc", false},
		{"a\nb", "a", false},
		{"(1 row)", "(2 row)", false},
	} {
		if got := Matches(c.out, c.shown); got != c.want {
			t.Errorf("%q and %q: %t", c.out, c.shown, got)
		}
	}
}
