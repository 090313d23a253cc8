package pgwire_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"

	"pgwicket/internal/pgwire"
)

// parse reads a startup message of that version and body.
func parse(t *testing.T, version uint32, body string) (pgwire.StartupMessage, error) {
	t.Helper()
	p, err := pgwire.ReadPacket(bytes.NewReader(packet(version, []byte(body)...)))
	if err != nil {
		t.Fatalf("%q is not a packet: %v", body, err)
	}
	return pgwire.ParseStartup(p)
}

var (
	long63 = strings.Repeat("n", 63)
	long64 = strings.Repeat("n", 64)
)

func TestParseStartup(t *testing.T) {
	const v30, v31, v32, grease = 3 << 16, 3<<16 | 1, 3<<16 | 2, 3<<16 | 9999
	for _, c := range []struct {
		name           string
		version        uint32
		body           string
		user, database string
	}{
		{"user only", v30, "user\x00alice\x00\x00", "alice", "alice"},
		{"database", v30, "user\x00alice\x00database\x00sales\x00\x00", "alice", "sales"},
		{"database first", v30, "database\x00sales\x00user\x00alice\x00\x00", "alice", "sales"},
		// PostgreSQL opens the user's own database for an empty name too.
		{"empty database", v30, "user\x00alice\x00database\x00\x00\x00", "alice", "alice"},
		{"empty value", v30, "user\x00alice\x00options\x00\x00\x00", "alice", "alice"},
		{"63 bytes", v30, "user\x00" + long63 + "\x00database\x00" + long63 + "\x00\x00", long63, long63},
		{"long setting", v30, "user\x00a\x00application_name\x00" + long64 + "\x00\x00", "a", "a"},
		{"not UTF-8", v30, "user\x00\xff\xfe\x00\x00", "\xff\xfe", "\xff\xfe"},
		{"quotes", v30, "user\x00a'b\"c\n\x00\x00", "a'b\"c\n", "a'b\"c\n"},
		// Only settings are read case-insensitively: this is one of the name
		// "USER", which the backend does not know.
		{"USER is not user", v30, "USER\x00x\x00\x00", "", ""},
		{"DATABASE is not database", v30, "user\x00alice\x00DATABASE\x00x\x00\x00", "alice", "alice"},
		// pgwire#455, pgagroal#971, psql-wire#147, pgcat#706: the backend
		// negotiates what the gate does not know.
		{"3.1", v31, "user\x00alice\x00\x00", "alice", "alice"},
		{"3.2", v32, "user\x00alice\x00\x00", "alice", "alice"},
		{"3.9999 with _pq_", grease, "user\x00alice\x00_pq_.test_protocol_negotiation\x00\x00\x00", "alice", "alice"},
		{"3.65535", v30 | 0xffff, "user\x00alice\x00\x00", "alice", "alice"},
		{"3.0 with _pq_", v30, "_pq_.command_tag_format\x001\x00user\x00alice\x00\x00", "alice", "alice"},
	} {
		m, err := parse(t, c.version, c.body)
		if c.user == "" {
			if err == nil {
				t.Errorf("%s: accepted", c.name)
			}
			continue
		}
		if err != nil || m.Version != c.version || m.User() != c.user || m.Database() != c.database {
			t.Errorf("%s: %#x, user %q, database %q, %v; want %#x, %q, %q", c.name, m.Version, m.User(), m.Database(), err, c.version, c.user, c.database)
		}
		if want := packet(c.version, []byte(c.body)...); !bytes.Equal(m.Encode(), want) {
			t.Errorf("%s: encodes to %q, want %q", c.name, m.Encode(), want)
		}
	}
}

func TestParseStartupRefuses(t *testing.T) {
	const v30 = 3 << 16
	for _, c := range []struct {
		name     string
		version  uint32
		body     string
		sqlstate string
		message  string
	}{
		{"2.0", 2 << 16, "alice", "0A000", "unsupported frontend protocol 2.0"},
		{"1.0", 1 << 16, "", "0A000", "unsupported frontend protocol 1.0"},
		{"0.0", 0, "", "0A000", "unsupported frontend protocol 0.0"},
		{"4.0", 4 << 16, "user\x00alice\x00\x00", "0A000", "unsupported frontend protocol 4.0"},
		{"an unknown request code", 1234<<16 | 5681, "", "0A000", "unsupported frontend protocol 1234.5681"},

		{"empty message", v30, "", "08P01", "expected terminator as last byte"},
		{"terminator only", v30, "\x00", "28000", "no PostgreSQL user name"},
		{"no user", v30, "database\x00sales\x00\x00", "28000", "no PostgreSQL user name"},
		{"empty user", v30, "user\x00\x00\x00", "28000", "no PostgreSQL user name"},
		{"empty user, then database", v30, "user\x00\x00database\x00sales\x00\x00", "28000", "no PostgreSQL user name"},

		{"no terminator", v30, "user\x00alice\x00", "08P01", "expected terminator as last byte"},
		{"value without its terminator", v30, "user\x00alice", "08P01", `"user" without a value`},
		{"name without its terminator", v30, "user", "08P01", "name without a terminator"},
		// PostgreSQL takes any last byte for the terminator.
		{"X as the terminator", v30, "user\x00alice\x00X", "08P01", "name without a terminator"},
		// PostgreSQL reads the value before it looks at the rest.
		{"replication with another value", v30, "user\x00a\x00replication\x00perhaps\x00\x00", "22023", `parameter "replication": "perhaps"; valid values are false, 0, true, 1 and database`},
		{"the same without a user", v30, "replication\x00\x00\x00", "22023", `parameter "replication": ""`},
		{"the same and a byte after it", v30, "user\x00a\x00replication\x00o\x00\x00\x00", "22023", `parameter "replication": "o"`},
		{"name without a value", v30, "user\x00alice\x00options\x00", "08P01", `"options" without a value`},
		// Parameters after the terminator.
		{"one byte after it", v30, "user\x00alice\x00\x00\x00", "08P01", "expected terminator as last byte"},
		{"parameters after it", v30, "user\x00alice\x00\x00user\x00postgres\x00\x00", "08P01", "expected terminator as last byte"},
		{"empty name", v30, "\x00alice\x00\x00", "08P01", "expected terminator as last byte"},

		// PostgreSQL (tried with 15) takes the last of two, so a gate that
		// checks the first has checked another role.
		{"user twice", v30, "user\x00alice\x00user\x00postgres\x00\x00", "08P01", `"user" more than once`},
		{"user twice, the same", v30, "user\x00alice\x00user\x00alice\x00\x00", "08P01", `"user" more than once`},
		{"user and USER", v30, "user\x00alice\x00USER\x00postgres\x00\x00", "08P01", `"user" more than once`},
		{"database twice", v30, "user\x00a\x00database\x00b\x00database\x00c\x00\x00", "08P01", `"database" more than once`},
		{"replication twice", v30, "user\x00a\x00replication\x00off\x00replication\x00on\x00\x00", "08P01", `"replication" more than once`},
		{"options twice", v30, "user\x00a\x00options\x00-c x=1\x00options\x00-c x=2\x00\x00", "08P01", `"options" more than once`},
		// materialize#38442: setting names match without case.
		{"setting in two cases", v30, "user\x00a\x00TimeZone\x00UTC\x00timezone\x00CET\x00\x00", "08P01", `"timezone" more than once`},
		{"_pq_ twice", v30, "user\x00a\x00_pq_.x\x001\x00_pq_.X\x002\x00\x00", "08P01", `"_pq_.x" more than once`},

		// PostgreSQL would log this one in as its first 63 bytes.
		{"64-byte user", v30, "user\x00" + long64 + "\x00\x00", "08P01", "user name is 64 bytes long"},
		{"64-byte database", v30, "user\x00a\x00database\x00" + long64 + "\x00\x00", "08P01", "database name is 64 bytes long"},
		{"a user of 10,000 bytes", v30, "user\x00" + strings.Repeat("n", 9_980) + "\x00\x00", "08P01", "user name is 9980 bytes long"},
	} {
		_, err := parse(t, c.version, c.body)
		var refused *pgwire.ProtocolError
		if !errors.As(err, &refused) {
			t.Errorf("%s: %v, want a *ProtocolError", c.name, err)
			continue
		}
		if refused.SQLSTATE != c.sqlstate || !strings.Contains(refused.Message, c.message) {
			t.Errorf("%s: %s %q, want %s %q", c.name, refused.SQLSTATE, refused.Message, c.sqlstate, c.message)
		}
	}
}

// CVE-2022-41862, CVE-2024-10977: clients and the log show these messages to
// people, so text from the client must be quoted.
func TestParseStartupQuotesTextOfTheClient(t *testing.T) {
	for _, body := range []string{
		"user\x00a\x00x\x1b[2J\ny\x001\x00x\x1b[2J\ny\x002\x00\x00", // twice
		"user\x00a\x00x\x1b[2J\ny\x00",                              // without a value
	} {
		_, err := parse(t, protocol3, body)
		if err == nil || strings.ContainsAny(err.Error(), "\x1b\n\x00") {
			t.Errorf("%q: %q", body, err)
		}
	}
}

// Get takes the exact name of a parameter.
func TestStartupMessageGet(t *testing.T) {
	m, err := parse(t, protocol3, "user\x00alice\x00application_name\x00psql\x00search_path\x00\x00\x00")
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"user": "alice", "application_name": "psql", "APPLICATION_NAME": "", "search_path": "", "alice": "", "": "",
	} {
		if got := m.Get(name); got != want {
			t.Errorf("Get(%q) = %q, want %q", name, got, want)
		}
	}
}

// FuzzParseStartup compares with a model of ProcessStartupPacket and with pgx. What
// the gate accepts, PostgreSQL must accept with the same meaning. What the gate
// refuses, PostgreSQL must refuse, or read differently.
func FuzzParseStartup(f *testing.F) {
	for _, body := range []string{
		"", "\x00", "user\x00alice\x00\x00", "user\x00alice\x00database\x00sales\x00\x00", "user\x00alice\x00", "user\x00alice", "user",
		"user\x00alice\x00user\x00postgres\x00\x00", "user\x00alice\x00USER\x00postgres\x00\x00", "user\x00\x00\x00", "user\x00a\x00\x00user\x00b\x00\x00",
		"user\x00" + long63 + "\x00\x00", "user\x00" + long64 + "\x00\x00", "user\x00a\x00database\x00" + long64 + "\x00\x00",
		"user\x00a\x00database\x00\x00\x00", "user\x00a\x00_pq_.x\x00\x00\x00", "user\x00a\x00replication\x00tr\x00\x00", "user\x00a\x00options\x00-c a=b\x00\x00",
		"user\x00a\x00TimeZone\x00UTC\x00timezone\x00CET\x00\x00", "user\x00a\x00k\x00\x00\xe2\x84\xaa\x00\x00\x00", "user\x00a\x00\xff\x00\x00\xfe\x00\x00\x00",
	} {
		for _, version := range []uint32{3 << 16, 3<<16 | 2, 3<<16 | 9999, 2 << 16, 4 << 16} {
			f.Add(version, []byte(body))
		}
	}
	f.Fuzz(func(t *testing.T, version uint32, body []byte) {
		raw := packet(version, body...)
		p, err := pgwire.ReadPacket(bytes.NewReader(raw))
		if err != nil || p.Kind() != pgwire.Startup {
			return
		}
		m, err := pgwire.ParseStartup(p)
		meant, accepted := postgresReads(raw)
		if err != nil {
			var refused *pgwire.ProtocolError
			if !errors.As(err, &refused) {
				t.Fatalf("%T %v is not a *ProtocolError", err, err)
			}
			if accepted && !meant.ambiguous {
				t.Fatalf("refused with %q, but PostgreSQL accepts it: %+v", err, meant)
			}
			return
		}
		if !accepted {
			t.Fatalf("accepted as %+v, but PostgreSQL refuses it", m)
		}
		if !bytes.Equal(m.Encode(), raw) {
			t.Errorf("encodes to %q, want %q", m.Encode(), raw)
		}
		if m.User() != meant.user || m.Database() != meant.database || m.Get("options") != meant.options || m.Get("replication") != meant.replication {
			t.Errorf("the gate reads %+v, PostgreSQL %+v", m, meant)
		}
		for _, parameter := range m.Parameters {
			if value, isSetting := meant.settings[lowerASCII(parameter.Name)]; isSetting && value != parameter.Value {
				t.Errorf("%q is %q to the gate and %q to PostgreSQL", parameter.Name, parameter.Value, value)
			}
		}
		compareWithPGX(t, raw, m)
	})
}

// compareWithPGX checks that pgx reads the same, for the versions that it reads.
func compareWithPGX(t *testing.T, raw []byte, m pgwire.StartupMessage) {
	if m.Version != pgproto3.ProtocolVersion30 && m.Version != pgproto3.ProtocolVersion32 {
		return
	}
	var theirs pgproto3.StartupMessage
	if err := theirs.Decode(raw[4:]); err != nil {
		t.Fatalf("pgx refuses it: %v", err)
	}
	if len(theirs.Parameters) != len(m.Parameters) {
		t.Errorf("pgx reads %q, the gate %q", theirs.Parameters, m.Parameters)
	}
	for _, p := range m.Parameters {
		if theirs.Parameters[p.Name] != p.Value {
			t.Errorf("%q is %q to pgx and %q to the gate", p.Name, theirs.Parameters[p.Name], p.Value)
		}
	}
}

// meaning is how PostgreSQL reads a startup message.
type meaning struct {
	user, database, options, replication string

	settings  map[string]string // by lower-case name, as guc_name_compare folds them
	ambiguous bool              // accepted, but read differently
}

// postgresReads follows the loop of ProcessStartupPacket (backend_startup.c):
// the buffer has a NUL after its end, strings end at the next NUL, the last of
// several values counts, and long names are truncated silently.
func postgresReads(raw []byte) (m meaning, accepted bool) {
	buf := append(bytes.Clone(raw[4:]), 0)
	length := len(raw) - 4
	if binary.BigEndian.Uint32(buf)>>16 != 3 {
		return m, false
	}
	text := func(offset int) string {
		end := offset
		for buf[end] != 0 {
			end++
		}
		return string(buf[offset:end])
	}
	m.settings = make(map[string]string)
	seen := make(map[string]bool)
	offset := 4
	for offset < length {
		name := text(offset)
		if name == "" {
			break
		}
		at := offset + len(name) + 1
		if at >= length {
			break // missing value; the check below refuses it
		}
		value := text(at)
		switch name {
		case "user":
			m.user = value
		case "database":
			m.database = value
		case "options":
			m.options = value
		case "replication":
			m.replication = value
		default:
			m.settings[lowerASCII(name)] = value
		}
		// PostgreSQL accepts two names that differ only in case if one of
		// them is not a setting; the gate refuses them.
		m.ambiguous = m.ambiguous || seen[strings.ToLower(name)]
		seen[strings.ToLower(name)] = true
		offset = at + len(value) + 1
	}
	if offset != length-1 || m.user == "" {
		return m, false
	}
	if m.database == "" {
		m.database = m.user
	}
	// It checks the position of the last byte and not its value: a name of one
	// byte is accepted as the terminator.
	m.ambiguous = m.ambiguous || len(m.user) > 63 || len(m.database) > 63 || buf[length-1] != 0
	m.user, m.database = m.user[:min(63, len(m.user))], m.database[:min(63, len(m.database))]
	return m, true
}

// lowerASCII folds as guc_name_compare does: A to Z, byte by byte.
func lowerASCII(s string) string {
	b := []byte(s)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}

// pgbouncer#382, pgbouncer#1164, pgbouncer#1196: PostgreSQL accepts any prefix of a
// boolean for replication, and "database" with another meaning.
func TestReplication(t *testing.T) {
	for value, want := range map[string][2]bool{
		"true": {true, false}, "t": {true, false}, "tr": {true, false}, "TRUE": {true, false}, "yes": {true, false}, "Y": {true, false},
		"on": {true, false}, "1": {true, false}, "database": {true, true},
		"false": {}, "f": {}, "no": {}, "n": {}, "off": {}, "of": {}, "0": {},
	} {
		m, err := parse(t, protocol3, "user\x00a\x00replication\x00"+value+"\x00\x00")
		walsender, database := m.Replication()
		if err != nil || walsender != want[0] || database != want[1] {
			t.Errorf("%q: %v, %v (%v), want %v", value, walsender, database, err, want)
		}
	}
	for _, value := range []string{"", "o", "2", "00", "truex", "Database", "physical", "da"} {
		if _, err := parse(t, protocol3, "user\x00a\x00replication\x00"+value+"\x00\x00"); err == nil {
			t.Errorf("%q is accepted", value)
		}
	}
	m, err := parse(t, protocol3, "user\x00a\x00Replication\x00true\x00\x00")
	if walsender, _ := m.Replication(); err != nil || walsender {
		t.Errorf("the name of a parameter in capitals: %v, %v", walsender, err)
	}
}
