package pgwire

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
)

// maxName is NAMEDATALEN-1. PostgreSQL truncates user and database to it silently
// (ProcessStartupPacket): a gate that compared all 70 bytes would admit one role
// and open a session for another.
const maxName = 63

// protocolMajor is the only major version that PostgreSQL has supported since
// release 14. The backend negotiates the minor version.
const protocolMajor = 3

// Reserved is the prefix of the settings that only the gate may send.
const Reserved = "pgwicket."

// A ProtocolError says why a startup message is refused, with the SQLSTATE and
// the message for the client.
type ProtocolError struct {
	SQLSTATE string
	Message  string
}

func (e *ProtocolError) Error() string { return e.Message }

func violation(format string, args ...any) error {
	return &ProtocolError{SQLSTATE: SQLStateProtocolViolation, Message: fmt.Sprintf(format, args...)}
}

// Parameter is one parameter of a startup message.
type Parameter struct {
	Name, Value string
}

// StartupMessage is a startup message that PostgreSQL reads exactly as the gate
// does: it has one user, no name twice, and nothing that would be truncated.
type StartupMessage struct {
	Version    uint32 // major<<16 | minor, as the client sent it
	Parameters []Parameter
}

// ParseStartup parses a startup message. The error is a *ProtocolError. Some
// messages are refused although PostgreSQL accepts them, because it reads them
// differently: of a repeated name it takes the last value, and it truncates user
// and database to 63 bytes.
func ParseStartup(p Packet) (StartupMessage, error) {
	m := StartupMessage{Version: binary.BigEndian.Uint32(p.raw[4:])}
	if major := m.Version >> 16; major != protocolMajor {
		return m, &ProtocolError{SQLSTATE: SQLStateFeatureNotSupported, Message: fmt.Sprintf(
			"unsupported frontend protocol %d.%d: server supports 3.0 and later", major, m.Version&0xffff)}
	}
	seen := make(map[string]bool)
	body := p.raw[minPacket:]
	for len(body) > 0 && body[0] != 0 {
		name, rest, ok := cutString(body)
		if !ok {
			return m, violation("invalid startup packet layout: name without a terminator")
		}
		value, rest, ok := cutString(rest)
		if !ok {
			return m, violation("invalid startup packet layout: parameter %q without a value", name)
		}
		// PostgreSQL ignores case only in the names of settings, but no
		// honest client sends both "user" and "USER".
		if key := strings.ToLower(name); seen[key] {
			return m, violation("startup packet has parameter %q more than once", key)
		} else {
			seen[key] = true
		}
		// PostgreSQL checks this value before it reads the rest.
		if _, ok := parseBool(value); name == "replication" && value != "database" && !ok {
			return m, &ProtocolError{SQLSTATE: SQLStateInvalidParameterValue, Message: fmt.Sprintf(
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
		return &ProtocolError{SQLSTATE: SQLStateInvalidAuthorization, Message: "no PostgreSQL user name specified in startup packet"}
	}
	for _, name := range []string{"user", "database"} {
		if v := m.Get(name); len(v) > maxName {
			return violation("%s name is %d bytes long, the limit is %d", name, len(v), maxName)
		}
	}
	return nil
}

// checkReserved refuses settings that PostgreSQL could not tell from the gate's
// own: of a setting that is sent twice it takes the last value, and it ignores
// case. In options a setting is -c name=value or --name=value, and a backslash
// quotes the letter after it (pg_split_opts in postinit.c).
func (m StartupMessage) checkReserved() error {
	for _, p := range m.Parameters {
		options := strings.ReplaceAll(p.Value, "\\", "")
		if strings.HasPrefix(strings.ToLower(p.Name), Reserved) ||
			strings.EqualFold(p.Name, "options") && strings.Contains(strings.ToLower(options), Reserved) {
			return &ProtocolError{SQLSTATE: SQLStateInsufficientPrivilege, Message: "settings that begin with " + Reserved + " are reserved"}
		}
	}
	return nil
}

// Set sets the value of the parameter of that exact name, and appends one if there
// is none.
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

// User returns the role that the client names.
func (m StartupMessage) User() string { return m.Get("user") }

// Database returns the database that PostgreSQL will open: the one that the client
// names, or else the one named like the user.
func (m StartupMessage) Database() string {
	if db := m.Get("database"); db != "" {
		return db
	}
	return m.User()
}

// Replication reports whether PostgreSQL will make the session a walsender, and
// whether one with a database (logical replication). ProcessStartupPacket takes
// "database" or any value that parse_bool does.
func (m StartupMessage) Replication() (walsender, database bool) {
	value := m.Get("replication")
	if value == "database" {
		return true, true
	}
	on, _ := parseBool(value)
	return on, false
}

// parseBool is PostgreSQL's parse_bool (bool.c): any prefix of true, false, yes
// and no, of on and off from two letters, and 1 and 0; case is ignored.
func parseBool(s string) (value, ok bool) {
	s = strings.ToLower(s)
	prefixOf := func(word string, least int) bool { return len(s) >= least && strings.HasPrefix(word, s) }
	switch {
	case prefixOf("true", 1), prefixOf("yes", 1), prefixOf("on", 2), s == "1":
		return true, true
	case prefixOf("false", 1), prefixOf("no", 1), prefixOf("off", 2), s == "0":
		return false, true
	}
	return false, false
}

// Encode returns the packet for the backend: Version and Parameters, in the
// client's order, and nothing else.
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
