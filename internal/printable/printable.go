// Package printable makes texts that a client has sent fit for logs, terminals and pages.
package printable

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Text escapes what a terminal or a log reader could take for more than
// text. slog escapes what its format requires, which leaves DEL and the C1
// controls. A backslash is escaped, too, or one that was sent could not be told
// from one of ours.
func Text(s string) string {
	if strings.IndexFunc(s, func(r rune) bool { return r == '\\' || r == utf8.RuneError || !strconv.IsPrint(r) }) < 0 {
		return s
	}
	quoted := strconv.Quote(s)
	return strings.ReplaceAll(quoted[1:len(quoted)-1], `\"`, `"`)
}

// Escape is Text for a text that may have been through it already: a backslash stays one.
func Escape(s string) string {
	unprintable := func(r rune) bool { return r == utf8.RuneError || !strconv.IsPrint(r) }
	if strings.IndexFunc(s, unprintable) < 0 {
		return s
	}
	var b strings.Builder
	for s != "" {
		r, size := utf8.DecodeRuneInString(s)
		if unprintable(r) {
			quoted := strconv.Quote(s[:size])
			b.WriteString(quoted[1 : len(quoted)-1])
		} else {
			b.WriteString(s[:size])
		}
		s = s[size:]
	}
	return b.String()
}

// Clip returns at most so many bytes of a printable text, with the length of what
// it was made of where that is more. It shares no memory with s.
func Clip(s string, most, length int) string {
	if length <= most && len(s) <= most {
		return strings.Clone(s)
	}
	return fmt.Sprintf("%s... (%d bytes)", strings.ToValidUTF8(s[:min(len(s), most)], ""), length)
}

// Short returns at most so many bytes of a client's text, as Text and Clip make them.
func Short(s string, most int) string { return Clip(Text(s[:min(len(s), most)]), most, len(s)) }

// Excerpt is Short for a page: an ellipsis marks the cut.
func Excerpt(s string, most int) string {
	if s = Text(s); len(s) > most {
		return strings.ToValidUTF8(s[:most], "") + "…"
	}
	return strings.Clone(s)
}

// List returns at most so many texts of a client's, each as Short makes it, and how
// many more there are.
func List(list []string, texts, most int) []string {
	out := make([]string, 0, min(len(list), texts+1))
	for i, s := range list {
		if i == texts {
			return append(out, fmt.Sprintf("and %d more", len(list)-texts))
		}
		out = append(out, Short(s, most))
	}
	return out
}
