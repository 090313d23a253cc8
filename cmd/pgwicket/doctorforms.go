package main

import (
	"github.com/spf13/cobra"

	"pgwicket/cmd/pgwicket/cli"
	"pgwicket/internal/doctor/report"
)

// formsFlags adds the flags that say how the report is written.
func formsFlags(cmd *cobra.Command, forms *report.Forms) {
	cmd.Flags().BoolVar(&forms.JSON, "json", false, "print JSON")
	cmd.Flags().BoolVar(&forms.All, "all", false, "print the checks that passed, too")
	cli.FileFlag(cmd, &forms.HTML, "html", "write a page to this `file`, too")
	cli.FileFlag(cmd, &forms.Metrics, "metrics", "write metrics for Prometheus to this `file`, too")
	cli.FileFlag(cmd, &forms.Compare, "compare", "print what has changed since the report in this `file`, which --json has written")
}

// writeReport applies the waivers and writes the report in every form that was asked for.
func writeReport(s cli.Streams, forms report.Forms, r report.Report) int {
	r.Waive(forms.Waivers)
	if err := forms.Write(s.Out, r); err != nil {
		return cli.Fail(s, "doctor", err)
	}
	switch r.Worst() {
	case report.Fail:
		return exitFailures
	case report.Warn:
		return cli.Failed
	}
	return cli.OK
}
