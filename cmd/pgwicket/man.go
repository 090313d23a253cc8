package main

import (
	"flag"
	"fmt"
	"io"
	"runtime/debug"
	"strings"
)

const manHelp = `Print the manual page, with the help of every command, in roff:

  pgwicket man >/usr/share/man/man8/pgwicket.8
`

func man(args []string, s streams) int {
	if status, ok := parse(flags("man"), args, s); !ok {
		return status
	}
	v, _, _ := buildVersion()
	writeMan(s.out, v, commitDate())
	return exitOK
}

// commitDate is the day of the commit that this was built from, so that the same
// commit makes the same page; empty if it is not known.
func commitDate() string {
	bi, _ := debug.ReadBuildInfo()
	if bi == nil {
		return ""
	}
	for _, s := range bi.Settings {
		if day, _, ok := strings.Cut(s.Value, "T"); ok && s.Key == "vcs.time" {
			return day
		}
	}
	return ""
}

func writeMan(w io.Writer, version, date string) {
	fmt.Fprintf(w, `.\" Made by pgwicket man.
.TH PGWICKET 8 "%s" "pgwicket %s" "System Administration"
.SH NAME
pgwicket \- TLS gate in front of PostgreSQL
.SH SYNOPSIS
.B pgwicket
.I COMMAND
.RI [ FLAGS ]
.SH DESCRIPTION
pgwicket terminates TLS with an enforced minimum version and cipher list, verifies
client certificates against a CA and revocation lists, admits the networks and the
sessions that its configuration allows, and hands them to PostgreSQL over a Unix
socket.
.SH COMMANDS
`, date, roff(version))
	for _, c := range commands() {
		fmt.Fprintf(w, ".SS %s\n", roff(strings.TrimSpace(c.name+" "+c.args)))
		roffText(w, c.help)
		flagsOf(c).VisitAll(func(fl *flag.Flag) {
			f := completedFlagOf(fl)
			tag := ".BI \"" + roff("--"+f.name) + " \" VALUE"
			switch {
			case f.bare:
				tag = ".B " + roff("--"+f.name)
			case f.file:
				tag = strings.Replace(tag, "VALUE", "FILE", 1)
			}
			fmt.Fprintf(w, ".TP\n%s\n%s\n", tag, roff(f.usage))
		})
	}
	fmt.Fprint(w, `.SH EXIT STATUS
0 done, 1 failed while running, 2 wrong usage, 78 the configuration is wrong.
.SH ENVIRONMENT
.TP
.B PGWICKET_CONFIG
The configuration file, where no \fB\-\-config\fR names one.
.TP
.BI PGWICKET_ KEY
The value of a key, in place of that of the file: PGWICKET_TLS_CERT_FILE for
cert_file below tls. See \fBconfig\fR above.
.SH FILES
.TP
.I /etc/pgwicket/pgwicket.yaml
The configuration file, where nothing names another one. config.example.yaml explains
every key.
.SH SEE ALSO
.BR psql (1),
.BR nft (8),
.BR systemd.resource-control (5)
`)
}

// roffText writes a help text: what is indented stays as it is, all else is filled.
func roffText(w io.Writer, text string) {
	literal := false
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		indented := strings.HasPrefix(line, " ")
		switch {
		case line == "" && literal:
			fmt.Fprint(w, ".EE\n")
			literal = false
			fallthrough
		case line == "":
			fmt.Fprintln(w, ".PP")
			continue
		case indented && !literal:
			fmt.Fprintln(w, ".EX")
			literal = true
		case !indented && literal:
			fmt.Fprintln(w, ".EE")
			literal = false
		}
		fmt.Fprintln(w, roff(line))
	}
	if literal {
		fmt.Fprintln(w, ".EE")
	}
}

// roff takes away the meaning that a line has for roff, and spells what is not
// ASCII so that every one of them reads it.
func roff(line string) string {
	var b strings.Builder
	for i, r := range line {
		switch {
		case r == '\\':
			b.WriteString(`\e`)
		case r == '-':
			b.WriteString(`\-`)
		case (r == '.' || r == '\'') && i == 0:
			b.WriteString(`\&` + string(r))
		case r > '~':
			fmt.Fprintf(&b, `\[u%04X]`, r)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}
