package backend

import (
	"strings"
	"unicode/utf8"

	"pgwicket/internal/pgwire"
)

// maxApplicationName is NAMEDATALEN-1, to which PostgreSQL cuts it.
const maxApplicationName = 63

// printedLen returns how long PostgreSQL 16 and later makes a byte of an
// application_name, at least: it writes \xNN for what is not printable ASCII
// (pg_clean_ascii in src/common/string.c).
func printedLen(b byte) int {
	if b < ' ' || b > '~' {
		return len(`\xNN`)
	}
	return 1
}

// NameWithAddress puts an address behind an application's name, of which as much
// is kept as PostgreSQL has room for when it prints it.
func NameWithAddress(name, address string) string {
	if name == "" {
		return address
	}
	const between = " - "
	room := maxApplicationName - len(between) - len(address)
	for i := range len(name) {
		if room -= printedLen(name[i]); room < 0 {
			for i > 0 && !utf8.RuneStart(name[i]) {
				i--
			}
			name = name[:i]
			break
		}
	}
	return name + between + address
}

// ClientInfo is what PostgreSQL is told of a client, as settings that
// current_setting() reads.
type ClientInfo struct {
	Addr, CN, Serial, Session string
}

// maxInfo is how long a name may be that is passed on. Part of a name may be the
// whole of another's, so a longer one is left out.
const maxInfo = 255

// Set puts the settings into a startup packet.
func (i ClientInfo) Set(m *pgwire.StartupMessage) {
	for _, s := range []struct{ name, value string }{
		{"client_addr", i.Addr},
		{"client_cn", i.CN},
		{"client_serial", i.Serial},
		{"session_id", i.Session},
	} {
		if len(s.value) > maxInfo || strings.ContainsRune(s.value, 0) || !utf8.ValidString(s.value) {
			s.value = ""
		}
		m.Set(pgwire.Reserved+s.name, s.value)
	}
}
