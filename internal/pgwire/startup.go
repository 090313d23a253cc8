package pgwire

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
)

// maxName is NAMEDATALEN-1. PostgreSQL cuts user and database to it without a
// word: a gate that compared all 70 bytes would admit one role and open the
// session of another.
const maxName = 63

// protocolMajor is the only major version that PostgreSQL has spoken since
// release 14; every minor one is the backend's to negotiate.
const protocolMajor = 3

// Reserved begins the names of the settings that only the gate may send.
const Reserved = "pgwicket."

// A ProtocolError is a startup message that must be refused, in the words and
// with the SQLSTATE that the client is told.
type ProtocolError struct {
	SQLSTATE string
	Message  string
}

func (e *ProtocolError) Error() string { return e.Message }

func violation(format string, args ...any) error {
	return &ProtocolError{SQLSTATE: "08P01", Message: fmt.Sprintf(format, args...)}
}

// Parameter is one name and value of a startup message.
type Parameter struct {
	Name, Value string
}

// StartupMessage is a startup message that means to PostgreSQL exactly what
// it means here: it has one user, no name twice, and nothing is cut short.
type StartupMessage struct {
	Version    uint32 // major<<16 | minor, as the client sent it
	Parameters []Parameter
}

// ParseStartup reads a startup message. Its error is a *ProtocolError, also
// where PostgreSQL would read the message in its own way: of a repeated name it
// takes the last, names over 63 bytes it truncates.
func ParseStartup(p Packet) (StartupMessage, error) {
	m := StartupMessage{Version: binary.BigEndian.Uint32(p.raw[4:])}
	if major := m.Version >> 16; major != protocolMajor {
		return m, &ProtocolError{SQLSTATE: "0A000", Message: fmt.Sprintf(
			"unsupported frontend protocol %d.%d: server supports 3.0 and later", major, m.Version&0xffff)}
	}
	seen := make(map[string]bool)
	body := p.raw[minPacket:]
	for len(body) > 0 && body[0] != 0 {
		name, rest, ok := cutString(body)
		if !ok {
			return m, violation("invalid startup packet layout: a name without its terminator")
		}
		value, rest, ok := cutString(rest)
		if !ok {
			return m, violation("invalid startup packet layout: parameter %q without a value", name)
		}
		// Only GUC names are case-insensitive to PostgreSQL, but nobody
		// has an honest reason to send both "user" and "USER".
		if key := strings.ToLower(name); seen[key] {
			return m, violation("startup packet has parameter %q more than once", key)
		} else {
			seen[key] = true
		}
		// PostgreSQL reads this one as it comes to it, before it has seen the rest.
		if _, ok := parseBool(value); name == "replication" && value != "database" && !ok {
			return m, &ProtocolError{SQLSTATE: "22023", Message: fmt.Sprintf(
				"invalid value for parameter \"replication\": %q; valid values are false, 0, true, 1 and database", value)}
		}
		m.Parameters = append(m.Parameters, Parameter{name, value})
		body = rest
	}
	if len(body) != 1 {
		return m, violation("invalid startup packet layout: expected terminator as last byte")
	}
	if err := m.checkReserved(); err != nil {
		return m, err
	}
	return m, m.checkNames()
}

func cutString(b []byte) (s string, rest []byte, ok bool) {
	before, after, ok := bytes.Cut(b, []byte{0})
	return string(before), after, ok
}

func (m StartupMessage) checkNames() error {
	if m.User() == "" {
		return &ProtocolError{SQLSTATE: "28000", Message: "no PostgreSQL user name specified in startup packet"}
	}
	for _, name := range []string{"user", "database"} {
		if v := m.Get(name); len(v) > maxName {
			return violation("%s name is %d bytes long, the limit is %d", name, len(v), maxName)
		}
	}
	return nil
}

// checkReserved refuses settings that PostgreSQL would take for the gate's own
// word: of a setting that is sent twice the last one counts, whatever the letters'
// case. In options a setting is -c name=value or --name=value, and a backslash
// hides any letter behind it (pg_split_opts).
func (m StartupMessage) checkReserved() error {
	for _, p := range m.Parameters {
		options := strings.ReplaceAll(p.Value, "\\", "")
		if strings.HasPrefix(strings.ToLower(p.Name), Reserved) ||
			strings.EqualFold(p.Name, "options") && strings.Contains(strings.ToLower(options), Reserved) {
			return &ProtocolError{SQLSTATE: "42501", Message: "settings that begin with " + Reserved + " are not a client's to send"}
		}
	}
	return nil
}

// Set gives a parameter its value, the last one if there is none of that name.
func (m *StartupMessage) Set(name, value string) {
	for i, p := range m.Parameters {
		if p.Name == name {
			m.Parameters = slices.Clone(m.Parameters)
			m.Parameters[i].Value = value
			return
		}
	}
	m.Parameters = append(m.Parameters, Parameter{name, value})
}

// Get returns the value of the parameter of that exact name, or "".
func (m StartupMessage) Get(name string) string {
	for _, p := range m.Parameters {
		if p.Name == name {
			return p.Value
		}
	}
	return ""
}

// User returns the role that the client asks for.
func (m StartupMessage) User() string { return m.Get("user") }

// Database returns the database that PostgreSQL will open: the user's name
// where the client names none.
func (m StartupMessage) Database() string {
	if db := m.Get("database"); db != "" {
		return db
	}
	return m.User()
}

// Replication says whether PostgreSQL will make a walsender of the session, and
// whether one with a database (logical replication), as ProcessStartupPacket
// reads the parameter: «database», or whatever parse_bool takes.
func (m StartupMessage) Replication() (walsender, database bool) {
	value := m.Get("replication")
	if value == "database" {
		return true, true
	}
	on, _ := parseBool(value)
	return on, false
}

// parseBool is PostgreSQL's parse_bool: any beginning of true, false, yes and
// no, on and off from two letters, 1 and 0, whatever the case.
func parseBool(s string) (value, ok bool) {
	s = strings.ToLower(s)
	begins := func(word string, least int) bool { return len(s) >= least && strings.HasPrefix(word, s) }
	switch {
	case begins("true", 1), begins("yes", 1), begins("on", 2), s == "1":
		return true, true
	case begins("false", 1), begins("no", 1), begins("off", 2), s == "0":
		return false, true
	}
	return false, false
}

// Encode returns the packet for the backend, made from what was parsed and
// from nothing else, in the client's order.
func (m StartupMessage) Encode() []byte {
	b := make([]byte, minPacket, 256)
	binary.BigEndian.PutUint32(b[4:], m.Version)
	for _, p := range m.Parameters {
		b = append(b, p.Name...)
		b = append(b, 0)
		b = append(b, p.Value...)
		b = append(b, 0)
	}
	b = append(b, 0)
	binary.BigEndian.PutUint32(b, uint32(len(b)))
	return b
}
