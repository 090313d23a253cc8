package machine

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"pgwicket/internal/doctor/report"
	"pgwicket/internal/printable"
)

var umaskLine = regexp.MustCompile(`(?m)^\s*(?:umask|UMASK)\s+([0-7]{1,4})\b`)

// defaultUmask is that of a login where nothing sets another one.
const defaultUmask = 0o022

// umask looks at what a login shell of an account reads. Its own files come last, so the
// last of them counts.
func (e examination) umask() (out []report.Finding) {
	for _, a := range e.accounts {
		if strings.HasSuffix(a.Shell, "nologin") || strings.HasSuffix(a.Shell, "false") {
			continue
		}
		profile := loginProfile(a.Home)
		mask, where, known := uint64(defaultUmask), profile, true
		for _, path := range []string{filepath.Join(e.Etc, "login.defs"), filepath.Join(e.Etc, "profile"), profile} {
			read := readFollowing
			if path == profile {
				read = func(path string) (string, error) { return readOwn(path, maxFile) }
			}
			text, err := read(path)
			if err != nil {
				skipped := unread(path, err)
				out, known = append(out, skipped...), known && skipped == nil
			}
			if all := umaskLine.FindAllStringSubmatch(text, -1); all != nil {
				mask, _ = strconv.ParseUint(all[len(all)-1][1], 8, 32) // matched digits
				where = path
			}
		}
		if known && mask&0o077 != 0o077 {
			out = append(out, report.New(report.Note, printable.Text(where), fmt.Sprintf("the umask of a login as %s is %04o: others can read or change what it writes", a.Name, mask),
				"echo 'umask 077' >> "+quote(profile)))
		}
	}
	return out
}

// loginProfile returns the file of a home directory that bash reads at a login: the first
// that there is (bash(1), INVOCATION).
func loginProfile(home string) string {
	for _, name := range []string{".bash_profile", ".bash_login"} {
		if _, err := os.Lstat(filepath.Join(home, name)); err == nil {
			return filepath.Join(home, name)
		}
	}
	return filepath.Join(home, ".profile")
}
