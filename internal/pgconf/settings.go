package pgconf

import (
	"fmt"
	"strings"

	"pgwicket/internal/statefile"
)

// readSettings reads one file of settings. A later setting overrides an earlier one.
func (c *Cluster) readSettings(file string, depth int) error {
	if err := tooDeep(file, depth); err != nil {
		return err
	}
	text, err := statefile.Read(file, maxFile)
	if err != nil {
		return err
	}
	number := 0
	for line := range strings.Lines(string(text)) {
		number++
		name, value, err := setting(line)
		if err != nil {
			return fmt.Errorf("%s:%d: %w", file, number, err)
		}
		files, isDirective, err := included(file, name, value)
		if err != nil {
			return fmt.Errorf("%s:%d: %w", file, number, err)
		}
		for _, f := range files {
			if err := c.readSettings(f, depth+1); err != nil {
				return err
			}
		}
		if name != "" && !isDirective {
			c.Settings[name] = value
		}
	}
	return nil
}

// setting parses "name = value"; the = is optional. The name is empty for a line without
// a setting.
func setting(line string) (name, value string, err error) {
	rest := strings.TrimLeft(line, " \t\r\n\f\v")
	if rest == "" || rest[0] == '#' {
		return "", "", nil
	}
	end := strings.IndexAny(rest, " \t\r\n\f\v=#'")
	if end <= 0 {
		return "", "", fmt.Errorf("%q is not a setting", strings.TrimSpace(line))
	}
	name, rest = strings.ToLower(rest[:end]), strings.TrimLeft(rest[end:], " \t\r\f\v")
	rest = strings.TrimLeft(strings.TrimPrefix(rest, "="), " \t\r\f\v")
	if strings.HasPrefix(rest, "'") {
		if value, rest, err = quoted(rest[1:]); err != nil {
			return "", "", fmt.Errorf("%s: %w", name, err)
		}
	} else {
		end := strings.IndexAny(rest+"\n", " \t\r\n\f\v#'")
		value, rest = rest[:end], rest[end:]
	}
	rest = strings.TrimSpace(rest)
	if value == "" && !strings.Contains(line, "'") || rest != "" && rest[0] != '#' {
		return "", "", fmt.Errorf("%q is not a setting", strings.TrimSpace(line))
	}
	return name, value, nil
}

// quoted parses a value after its opening quote. rest is the text after the closing one.
func quoted(s string) (value, rest string, err error) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\'' && strings.HasPrefix(s[i:], "''"):
			b.WriteByte('\'')
			i++
		case c == '\'':
			return b.String(), s[i+1:], nil
		case c == '\\' && i+1 < len(s):
			n, plain := escape(s[i+1:])
			b.WriteByte(plain)
			i += n
		default:
			b.WriteByte(c)
		}
	}
	return "", "", fmt.Errorf("the quote is not closed")
}

// escape parses the text after a backslash. It returns its length and the byte it means.
func escape(s string) (length int, meaning byte) {
	if i := strings.IndexByte("bfnrt", s[0]); i >= 0 {
		return 1, "\b\f\n\r\t"[i]
	}
	for length < min(3, len(s)) && '0' <= s[length] && s[length] <= '7' {
		meaning = meaning<<3 | (s[length] - '0')
		length++
	}
	if length == 0 {
		return 1, s[0]
	}
	return length, meaning
}
