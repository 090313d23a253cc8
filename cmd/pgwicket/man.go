package main

import (
	"bytes"
	"fmt"
	"runtime/debug"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
	"github.com/spf13/pflag"

	"pgwicket/cmd/pgwicket/cli"
)

func manCommand(s cli.Streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "man",
		Short:   "Print the manual page",
		Long:    "Print the manual page in roff, with the help of every command.",
		Example: "  pgwicket man >/usr/share/man/man8/pgwicket.8",
	}
	return cli.Runs(cmd, func() int {
		v, _, _ := buildVersion()
		page, err := renderMan(cmd.Root(), v, commitDate())
		if err != nil {
			return cli.Fail(s, cmd.Name(), err)
		}
		fmt.Fprintf(s.Out, "%s", page)
		return cli.OK
	})
}

// commitDate is the time of the commit that this was built from, so that the same
// commit makes the same page; the zero time if it is not known.
func commitDate() (date time.Time) {
	if bi, ok := debug.ReadBuildInfo(); ok {
		for _, s := range bi.Settings {
			if s.Key == "vcs.time" {
				date, _ = time.Parse(time.RFC3339, s.Value)
			}
		}
	}
	return date
}

func renderMan(root *cobra.Command, version string, date time.Time) ([]byte, error) {
	var b bytes.Buffer
	header := &doc.GenManHeader{Title: "PGWICKET", Section: "8", Source: "pgwicket " + version, Manual: "System Administration", Date: &date}
	if err := doc.GenMan(manPage(root), header, &b); err != nil {
		return nil, err
	}
	// cobra writes the month only, which mandoc cannot parse (man(7), TH).
	month, day := date.Format(`"Jan 2006"`), `""`
	if !date.IsZero() {
		day = date.Format(`"2006-01-02"`)
	}
	return bytes.Replace(b.Bytes(), []byte(month), []byte(day), 1), nil
}

// manPage returns a command whose page holds those of all commands. cobra makes one
// page for each, and a reader of pgwicket(8) looks for all of them in one place.
func manPage(root *cobra.Command) *cobra.Command {
	var b strings.Builder
	b.WriteString(root.Long + "\n\n# COMMANDS\n\n")
	for _, c := range root.Commands() {
		if c.IsAvailableCommand() {
			writeMarkdown(&b, c)
			for _, below := range c.Commands() {
				writeMarkdown(&b, below)
			}
		}
	}
	b.WriteString(`# ENVIRONMENT

**PGWICKET_CONFIG**
: The configuration file where no flag names one.

**PGWICKET_**_KEY_
: The value of a key, which replaces that of the file. See **config** above.

# FILES

**/etc/pgwicket/pgwicket.yaml**
: The configuration file where nothing names another.

# SEE ALSO

**psql(1)**, **nft(8)**, **systemd.resource-control(5)**
`)
	page := &cobra.Command{
		Use: root.Use + " command [flags]", DisableFlagsInUseLine: true, Short: root.Short, Long: b.String(),
		DisableAutoGenTag: true, Run: func(*cobra.Command, []string) {},
	}
	page.Flags().Bool("help", false, "")
	_ = page.Flags().MarkHidden("help") // or cobra adds a section for this flag
	return page
}

func writeMarkdown(b *strings.Builder, c *cobra.Command) {
	fmt.Fprintf(b, "## %s\n\n%s\n\n", strings.TrimPrefix(c.UseLine(), "pgwicket "), c.Long)
	c.LocalFlags().VisitAll(func(f *pflag.Flag) {
		kind, usage := pflag.UnquoteUsage(f)
		if kind != "" {
			kind = " _" + kind + "_"
		}
		if f.DefValue != "" && f.DefValue != "false" {
			usage += " (default " + f.DefValue + ")"
		}
		fmt.Fprintf(b, "**--%s**%s\n: %s\n\n", f.Name, kind, usage)
	})
	if c.Example != "" {
		fmt.Fprintf(b, "Examples:\n\n```\n%s\n```\n\n", c.Example)
	}
}
