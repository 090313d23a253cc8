package prometheus_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// What the tests read.
var files = []string{
	"deploy/prometheus/prometheus.yml", "deploy/prometheus/pgwicket.rules.yml", "deploy/prometheus/pgwicket.alerts.yml",
	"deploy/prometheus/pgwicket.test.yml", "deploy/grafana/pgwicket.json",
	"docs/monitoring.md", "docs/troubleshooting.md", "metrics/testdata/exposition.txt", "config.example.yaml",
}

// misspelt returns a copy of the files with a typo.
func misspelt(t *testing.T, file, from, to string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	for _, f := range files {
		text, err := os.ReadFile(filepath.Join(root, f))
		if err != nil {
			t.Fatal(err)
		}
		if f == file {
			if !strings.Contains(string(text), from) {
				t.Errorf("%s: no %q to misspell", f, from)
			}
			text = []byte(strings.ReplaceAll(string(text), from, to))
		}
		path := filepath.Join(dir, f)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// A test of files that finds nothing may be one that looks at nothing: each of these typos must be noticed.
func TestTypos(t *testing.T) {
	report(t, slices.Concat(checkConfig(root), checkRules(root), checkDashboard(root))) // or any typo would pass for noticed
	const prometheus, rules, alerts, tests, dashboard = "deploy/prometheus/prometheus.yml", "deploy/prometheus/pgwicket.rules.yml",
		"deploy/prometheus/pgwicket.alerts.yml", "deploy/prometheus/pgwicket.test.yml", "deploy/grafana/pgwicket.json"
	for _, c := range []struct{ file, text, typo string }{
		{prometheus, "scrape_configs:", "scrape_config:"},
		{prometheus, "job_name: pgwicket", "job_name: pgwiket"},
		{prometheus, "pgwicket.alerts.yml", "pgwicket.alert.yml"},
		{prometheus, "127.0.0.1:10432", "127.0.0.1:10423"},
		{prometheus, "scrape_interval: 15s", "scrape_interval: 15"},

		{rules, "sum by (job, outcome) (", "sum by (job, outcome) "},
		{rules, "pgwicket_limit_connections", "pgwicket_limit_connection"},
		{rules, "sum by (job, outcome)", "sum by (job, reason)"},
		{rules, "sum by (job, le)", "sum by (job)"},
		{rules, `outcome!="probe"`, `outcome!="prob"`},
		{rules, "record:", "records:"},
		{rules, "instance:pgwicket_connections_used:ratio", "instance:pgwicket_connections_use:ratio"},

		{alerts, "== 0\n", "= 0\n"},
		{alerts, "pgwicket_crl_this_update", "pgwicket_crl_last_update"},
		{alerts, `reason="certificate_revoked"`, `reason="certificate_revokd"`},
		{alerts, `reason="certificate_revoked"`, `reason="certificate_revokd"`},
		{alerts, "annotations:", "annotation:"},
		{alerts, "severity: critical", "severity: critcal"},
		{alerts, "{{ $labels.file }}", "{{ $labels.path }}"},
		{alerts, "{{ $value | humanize }}", "{{ $value | humanise }}"},
		{alerts, "monitoring.md#pgwicketdown", "monitoring.md#pgwicketdwon"},
		{alerts, "alert: PgwicketDown", "alert: PgwicketDwon"},
		{alerts, "        for: 2m", "        for: 2 m"},
		{alerts, "summary:", "summaries:"},

		{tests, "alertname: PgwicketDown", "alertname: PgwicketDwon"},
		{tests, "series: 'pgwicket_backend_up{", "series: 'pgwicket_backends_up{"},
		{tests, "input_series:", "input_serie:"},
		{tests, `issuer="CN=root"`, `isuer="CN=root"`},

		{dashboard, "pgwicket_sessions_open{", "pgwicket_session_open{"},
		{dashboard, "sum by (cipher)", "sum by (ciphers)"},
		{dashboard, "sum by (le)", "sum by (job)"},
		{dashboard, "histogram_quantile(0.99, ", "histogram_quantil(0.99, "},
		{dashboard, "{{outcome}}", "{{outcom}}"},
		{dashboard, `"legendFormat"`, `"legendformt"`},
		{dashboard, `outcome!=\"probe\"`, `outcome!=\"prob\"`},
		{dashboard, `instance=~\"$instance\"`, `instance=~\"$instanc\"`},
		{dashboard, `"${datasource}"`, `"${datsource}"`},
		{dashboard, `"type": "gauge"`, `"type": "gauges"`},
		{dashboard, "label_values(pgwicket_build_info, job)", "label_values(pgwicket_buildinfo, job)"},
		{dashboard, `"x": 12`, `"x": 13`},

		{"docs/monitoring.md", "### PgwicketDown\n", "### PgwicketDwon\n"},
		{"metrics/testdata/exposition.txt", "pgwicket_accept_errors_total", "pgwicket_accept_failures_total"},
	} {
		dir := misspelt(t, c.file, c.text, c.typo)
		if wrong := slices.Concat(checkConfig(dir), checkRules(dir), checkDashboard(dir)); len(wrong) == 0 {
			t.Errorf("%s: %q for %q is not noticed", c.file, c.typo, c.text)
		}
	}
}

// What is well-formed and means something else is for the unit tests to notice.
func TestWrongConditions(t *testing.T) {
	if _, err := exec.LookPath("promtool"); err != nil {
		t.Skip("no promtool; on Debian it is in the package prometheus")
	}
	for _, c := range []struct{ text, typo string }{
		{"pgwicket_backend_up == 0", "pgwicket_backend_up == 1"},
		{"used:ratio > 0.8", "used:ratio > 0.95"},
		{"timestamp_seconds - time() < 86400", "timestamp_seconds - time() < 864000"},
		{"for: 10m", "for: 1m"},
	} {
		t.Run(c.text, func(t *testing.T) {
			t.Parallel()
			if wrong := promtool(misspelt(t, "deploy/prometheus/pgwicket.alerts.yml", c.text, c.typo)); len(wrong) == 0 {
				t.Errorf("%q for %q is not noticed", c.typo, c.text)
			}
		})
	}
}
