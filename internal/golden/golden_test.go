package golden

import "testing"

func TestDiff(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ got, want, diff string }{
		{"a\nb\nc", "a\nb\nc", ""},
		{"a\nc", "a\nb\nc", "  - b\n"},
		{"a\nb\nc", "a\nc", "  + b\n"},
		{"a\nx\nc", "a\ny\nc", "  + x\n  - y\n"},
		{"", "a", "  + \n  - a\n"},
	} {
		if got := Diff(c.got, c.want); got != c.diff {
			t.Errorf("%q and %q: %q, want %q", c.got, c.want, got, c.diff)
		}
	}
}

func TestFields(t *testing.T) {
	t.Parallel()
	type inner struct{ B []string }
	type outer struct {
		A int
		I *inner
		N *inner
	}
	if got, want := Fields(outer{A: 1, I: &inner{B: []string{"x", "y"}}}), "A: 1\nI.B: [x y]\nN: <nil>\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
