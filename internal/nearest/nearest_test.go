package nearest_test

import (
	"testing"

	"pgwicket/internal/nearest"
)

func TestWord(t *testing.T) {
	t.Parallel()
	known := []string{"cert_file", "key_file", "ca_file"}
	for name, want := range map[string]string{
		"cert_flie":  "cert_file",
		"KEY_FILE":   "key_file",
		"certfile":   "cert_file",
		"whatever":   "",
		"":           "",
		"completely": "",
	} {
		got, ok := nearest.Word(name, known)
		if ok != (want != "") || ok && got != want {
			t.Errorf("Word(%q) = %q, %v; want %q", name, got, ok, want)
		}
	}
	if got, ok := nearest.Word("x", nil); ok {
		t.Errorf("Word without known words = %q, true", got)
	}
}
