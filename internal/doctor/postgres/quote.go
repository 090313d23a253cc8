package postgres

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"pgwicket/internal/printable"
)

// safe makes SQL that the server has quoted fit for a terminal, and leaves its meaning:
// a quoted identifier or literal with characters that are not printable is written with
// the escapes of U&"..." and U&'...' (SQL standard; "Identifiers and Key Words" in
// PostgreSQL's documentation). Elsewhere such a character is escaped as in Go.
func safe(sql string) string { return escape(sql, printable.Text) }

// safeStatements is safe for a fix, which may have several lines.
func safeStatements(sql string) string {
	return escape(sql, func(text string) string {
		lines := strings.Split(text, "\n")
		for i, l := range lines {
			lines[i] = printable.Text(l)
		}
		return strings.Join(lines, "\n")
	})
}

func escape(sql string, unquoted func(string) string) string {
	if utf8.ValidString(sql) && isPrintable(sql) {
		return sql
	}
	var b strings.Builder
	for rest := sql; rest != ""; {
		i := strings.IndexAny(rest, `"'`)
		if i < 0 {
			b.WriteString(unquoted(rest))
			break
		}
		b.WriteString(unquoted(rest[:i]))
		segment := quotedSegment(rest[i:])
		rest = rest[i+len(segment):]
		if isPrintable(segment) {
			b.WriteString(segment)
		} else {
			b.WriteString("U&" + unicodeEscapes(segment))
		}
	}
	return b.String()
}

// quotedSegment returns what a quote and its counterpart enclose, with them.
func quotedSegment(s string) string {
	for i := 1; i < len(s); i++ {
		if s[i] != s[0] {
			continue
		}
		if i+1 < len(s) && s[i+1] == s[0] {
			i++
			continue
		}
		return s[:i+1]
	}
	return s
}

func isPrintable(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r == utf8.RuneError || !strconv.IsPrint(r) }) < 0
}

func unicodeEscapes(s string) string {
	var b strings.Builder
	for _, r := range s {
		switch {
		case r == '\\':
			b.WriteString(`\\`)
		case strconv.IsPrint(r) && r != utf8.RuneError:
			b.WriteRune(r)
		case r > 0xffff:
			fmt.Fprintf(&b, `\+%06X`, r)
		default:
			fmt.Fprintf(&b, `\%04X`, r)
		}
	}
	return b.String()
}

var simpleName = regexp.MustCompile(`^[a-z_][a-z0-9_]*$`)

// quoted quotes an identifier as the server would, but for its keywords, which are quoted
// in statements only.
func quoted(name string) string {
	if simpleName.MatchString(name) {
		return name
	}
	return safe(`"` + strings.ReplaceAll(name, `"`, `""`) + `"`)
}

// connectTo returns the commands of psql that connect to a database. A name that psql
// could take for a connection string is passed as a parameter of one. psql's commands have
// no escapes, so one that is not printable goes through printf.
func connectTo(database string) string {
	if simpleName.MatchString(database) {
		return `\connect ` + database
	}
	conninfo := "dbname='" + strings.NewReplacer(`\`, `\\`, `'`, `\'`, `"`, `""`).Replace(database) + "'"
	if isPrintable(database) {
		return `\connect -reuse-previous=on "` + conninfo + `"`
	}
	var octal strings.Builder
	for _, c := range []byte(conninfo) {
		fmt.Fprintf(&octal, `\%03o`, c)
	}
	return "\\set conninfo `printf '" + octal.String() + "'`\n" + `\connect -reuse-previous=on :conninfo`
}
