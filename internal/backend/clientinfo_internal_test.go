package backend

import (
	"strings"
	"testing"
)

// PostgreSQL 16 and later prints four bytes for each byte that is not ASCII, and then
// cuts the name: the address behind it must not be what is cut (pg8000#69).
func TestNameWithAddress(t *testing.T) {
	t.Parallel()
	const address = "[2001:db8::1234]:54321"
	for _, name := range []string{"", "shop", "Bücher", strings.Repeat("ä", 40), strings.Repeat("x", 80), "a\x00\xff\xfe", strings.Repeat("\xff", 70)} {
		got := NameWithAddress(name, address)
		printed := 0
		for i := range len(got) {
			printed += printedLen(got[i])
		}
		if printed > maxApplicationName || !strings.HasSuffix(got, address) || !strings.HasPrefix(name, strings.TrimSuffix(strings.TrimSuffix(got, address), " - ")) {
			t.Errorf("%q became %q, of %d bytes as printed", name, got, printed)
		}
	}
	if got := NameWithAddress("Bücher", address); got != "Bücher - "+address {
		t.Errorf("a name with room was cut: %q", got)
	}
}
