package report

import (
	"fmt"
	"io"
	"strings"
)

// WriteMetrics writes the report in the text format of Prometheus, for the textfile
// collector of node_exporter.
func (r Report) WriteMetrics(w io.Writer) error {
	var b strings.Builder
	b.WriteString("# HELP pgwicket_doctor_findings Results of the checks of pgwicket doctor, by status.\n# TYPE pgwicket_doctor_findings gauge\n")
	for _, s := range Statuses() {
		fmt.Fprintf(&b, "pgwicket_doctor_findings{status=%s} %d\n", label(string(s)), r.Count(s))
	}
	b.WriteString("# HELP pgwicket_doctor_finding Objects, or places, of which a check has found a fault.\n# TYPE pgwicket_doctor_finding gauge\n")
	counts := make(map[string]int)
	var order []string
	for _, f := range r.Findings {
		if !f.Status.found() {
			continue
		}
		series := fmt.Sprintf("pgwicket_doctor_finding{check=%s,heading=%s,severity=%s,subject=%s}", label(f.Check), label(string(f.Heading)), label(f.Severity), label(f.Subject))
		if _, ok := counts[series]; !ok {
			order = append(order, series)
		}
		counts[series] += max(f.Count, 1)
	}
	for _, series := range order {
		fmt.Fprintf(&b, "%s %d\n", series, counts[series])
	}
	fmt.Fprintf(&b, "# HELP pgwicket_doctor_last_run_timestamp_seconds When pgwicket doctor ran.\n# TYPE pgwicket_doctor_last_run_timestamp_seconds gauge\npgwicket_doctor_last_run_timestamp_seconds %d\n", r.Time.Unix())
	_, err := io.WriteString(w, b.String())
	return err
}

// label quotes the value of a label.
func label(value string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(strings.ToValidUTF8(value, "\uFFFD")) + `"`
}
