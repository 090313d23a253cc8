package upgrade

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode"
)

// Credentials returns the credentials of the unit that a configuration names, in a command, too. files are those that
// it names as such. systemd mounts credentials for the processes that start the gate, and for none that ExecReload= starts
// (systemd.exec(5)).
func Credentials(configuration string, files []string) (all []string) {
	dir := os.Getenv("CREDENTIALS_DIRECTORY")
	if dir == "" {
		return nil
	}
	text, _ := os.ReadFile(configuration) // without one the environment has all of it, and no command
	words := strings.FieldsFunc(string(text), func(r rune) bool { return unicode.IsSpace(r) || strings.ContainsRune("\"'[]{},;()", r) })
	for _, name := range slices.Concat(files, words) {
		if below, err := filepath.Rel(dir, name); err == nil && filepath.IsAbs(name) && filepath.IsLocal(below) && !slices.Contains(all, name) {
			all = append(all, name)
		}
	}
	return all
}
