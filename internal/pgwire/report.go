package pgwire

import "bytes"

// report reads the severity and the SQLSTATE of an ErrorResponse or a NoticeResponse
// as its parts come. The zero value is the beginning of a message.
type report struct {
	field    byte // whose value comes now; 0: a field's code comes
	n        uint8
	begun    bool // some of the message has been read
	complete bool
	plain    bool    // fatal is from field V; S may be translated, but is all that 9.5 and older send
	fatal    bool    // severity FATAL or PANIC
	value    [6]byte // the beginning of the field's value; n bytes of it are set
	code     [5]byte // the SQLSTATE, or zero
}

func (r *report) read(part []byte) {
	r.begun = true
	for len(part) > 0 && !r.complete {
		if r.field == 0 {
			r.field, r.n = part[0], 0
			r.complete = r.field == 0
			part = part[1:]
			continue
		}
		end := bytes.IndexByte(part, 0)
		text := part
		if end >= 0 {
			text = part[:end]
		}
		r.n += uint8(copy(r.value[r.n:], text))
		if end < 0 {
			return
		}
		r.set(r.field, r.value[:r.n])
		r.field, part = 0, part[end+1:]
	}
}

func (r *report) set(field byte, value []byte) {
	severe := string(value) == "FATAL" || string(value) == "PANIC"
	switch field {
	case 'V':
		r.fatal, r.plain = severe, true
	case 'S':
		if !r.plain {
			r.fatal = severe
		}
	case 'C':
		r.code = [5]byte{}
		if isSQLState(value) {
			copy(r.code[:], value)
		}
	}
}

// isSQLState reports whether value is five digits and capitals. A backend may send
// anything (CVE-2026-6666 of PgBouncer).
func isSQLState(value []byte) bool {
	for _, c := range value {
		if (c < '0' || c > '9') && (c < 'A' || c > 'Z') {
			return false
		}
	}
	return len(value) == 5
}

// is reports whether the SQLSTATE is the one given.
func (r *report) is(sqlstate string) bool { return string(r.code[:]) == sqlstate }

// sqlstate returns the SQLSTATE, or "" if there is none or it is not valid.
func (r *report) sqlstate() string {
	if r.code[0] == 0 {
		return ""
	}
	return string(r.code[:])
}

// ends reports whether the message, of that kind, says why the backend ends the
// session: an ErrorResponse of severity FATAL or PANIC, or the warning that
// PostgreSQL sends when it crashes or is stopped at once (quickdie in postgres.c).
func (r *report) ends(kind byte) bool {
	if kind == msgErrorResponse {
		return r.fatal
	}
	return kind == msgNotice && (r.is(SQLStateAdminShutdown) || r.is(sqlStateCrashShutdown))
}
