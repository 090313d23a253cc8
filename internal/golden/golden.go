// Package golden compares what a test gets with a file of testdata or another long text, and shows
// only the lines that differ. "go test -update" writes the files again.
package golden

import (
	"flag"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files of testdata again")

// File compares text with a file, or writes it there with -update.
func File(t *testing.T, name, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(name, []byte(got), 0o644); err != nil { //nolint:gosec // a file of the source tree
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if diff := Diff(got, string(want)); diff != "" {
		t.Errorf("%s differs; if the change is meant, run the test with -update:\n%s", name, diff)
	}
}

// Diff returns the lines that differ, with "-" before those that are wanted and "+" before those
// that there are, or "" if there are none. Texts of some thousand lines take a moment.
func Diff(got, want string) string {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	// The length of the longest common subsequence of the rests of both.
	common := make([][]int, len(g)+1)
	for i := range common {
		common[i] = make([]int, len(w)+1)
	}
	for i := len(g) - 1; i >= 0; i-- {
		for j := len(w) - 1; j >= 0; j-- {
			if g[i] == w[j] {
				common[i][j] = common[i+1][j+1] + 1
			} else {
				common[i][j] = max(common[i+1][j], common[i][j+1])
			}
		}
	}
	var out strings.Builder
	for i, j := 0, 0; i < len(g) || j < len(w); {
		switch {
		case i < len(g) && j < len(w) && g[i] == w[j]:
			i, j = i+1, j+1
		case j == len(w) || i < len(g) && common[i+1][j] >= common[i][j+1]:
			fmt.Fprintf(&out, "  + %s\n", g[i])
			i++
		default:
			fmt.Fprintf(&out, "  - %s\n", w[j])
			j++
		}
	}
	return out.String()
}

// Lists is Diff for lists.
func Lists(got, want []string) string {
	return Diff(strings.Join(got, "\n"), strings.Join(want, "\n"))
}

// Fields returns a line for each field of a struct, and of those in it.
func Fields(v any) string {
	var out strings.Builder
	writeFields(&out, "", reflect.ValueOf(v))
	return out.String()
}

func writeFields(out *strings.Builder, path string, v reflect.Value) {
	for v.Kind() == reflect.Pointer && !v.IsNil() {
		v = v.Elem()
	}
	if v.Kind() != reflect.Struct || v.NumField() == 0 {
		fmt.Fprintf(out, "%s: %+v\n", strings.TrimPrefix(path, "."), v)
		return
	}
	for i := range v.NumField() {
		writeFields(out, path+"."+v.Type().Field(i).Name, v.Field(i))
	}
}
