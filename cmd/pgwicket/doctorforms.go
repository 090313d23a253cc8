package main

import (
	"github.com/spf13/cobra"

	"pgwicket/internal/doctor/report"
)

// formsFlags adds the flags that say how the report is written.
func formsFlags(cmd *cobra.Command, forms *report.Forms) {
	cmd.Flags().BoolVar(&forms.JSON, "json", false, "print JSON")
	cmd.Flags().BoolVar(&forms.All, "all", false, "print the checks that passed, too")
	fileFlag(cmd, &forms.HTML, "html", "write a page to this `file`, too")
	fileFlag(cmd, &forms.Metrics, "metrics", "write metrics for Prometheus to this `file`, too")
	fileFlag(cmd, &forms.Compare, "compare", "print what has changed since the report in this `file`, which --json has written")
}

// writeReport applies the waivers and writes the report in every form that was asked for.
func writeReport(s streams, forms report.Forms, r report.Report) int {
	r.Waive(forms.Waivers)
	if err := forms.Write(s.out, r); err != nil {
		return fail(s, "doctor", err)
	}
	switch r.Worst() {
	case report.Fail:
		return exitFailures
	case report.Warn:
		return exitFailed
	}
	return exitOK
}
