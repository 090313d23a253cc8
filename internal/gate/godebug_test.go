package gate

import (
	"maps"
	"os"
	"regexp"
	"testing"
)

// go.mod pins the settings that the gate protects.
func TestGODEBUGIsPinned(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	block := regexp.MustCompile(`(?s)\ngodebug \((.*?)\n\)`).FindSubmatch(text)
	if block == nil {
		t.Fatal("go.mod has no godebug block")
	}
	pinned := make(map[string]string)
	for _, m := range regexp.MustCompile(`(?m)^\t(\w+)=(\w+)`).FindAllSubmatch(block[1], -1) {
		pinned[string(m[1])] = string(m[2])
	}
	if !maps.Equal(pinned, godebug) {
		t.Errorf("go.mod pins %v, want %v", pinned, godebug)
	}
}

func TestCheckGODEBUG(t *testing.T) {
	t.Parallel()
	for value, want := range map[string]int{
		"": 0, "fips140=on": 0, "tls10server=0": 0, "tls10server=1": 1, "fips140=on,tlsrsakex=1,tls3des=1": 2,
		"rsa1024min=0": 1, "tlsrsakex=1#2": 1, "tlsmaxrsasize=16384": 1, "madvdontneed=1": 0,
	} {
		if got := CheckGODEBUG(value); len(got) != want {
			t.Errorf("%q: %v, want %d problems", value, got, want)
		}
	}
}
