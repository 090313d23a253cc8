package prometheus_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/rulefmt"
	"gopkg.in/yaml.v3"
)

// root is where the project is.
const root = "../../.."

// scraping is what prometheus.yml says.
type scraping struct {
	Global struct {
		ScrapeInterval     model.Duration `yaml:"scrape_interval"`
		EvaluationInterval model.Duration `yaml:"evaluation_interval"`
	} `yaml:"global"`
	RuleFiles     []string `yaml:"rule_files"`
	ScrapeConfigs []struct {
		JobName       string `yaml:"job_name"`
		StaticConfigs []struct {
			Targets []string `yaml:"targets"`
		} `yaml:"static_configs"`
	} `yaml:"scrape_configs"`
}

// unitTests is what pgwicket.test.yml says.
type unitTests struct {
	RuleFiles          []string       `yaml:"rule_files"`
	EvaluationInterval model.Duration `yaml:"evaluation_interval"`
	Tests              []struct {
		Interval    model.Duration `yaml:"interval"`
		InputSeries []struct {
			Series string `yaml:"series"`
			Values string `yaml:"values"`
		} `yaml:"input_series"`
		AlertRuleTest []struct {
			EvalTime  model.Duration `yaml:"eval_time"`
			Alertname string         `yaml:"alertname"`
			ExpAlerts []struct {
				ExpLabels      map[string]string `yaml:"exp_labels"`
				ExpAnnotations map[string]string `yaml:"exp_annotations"`
			} `yaml:"exp_alerts"`
		} `yaml:"alert_rule_test"`
	} `yaml:"tests"`
}

// decode reads a file and takes no key that into has not.
func decode(path string, into any) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	d := yaml.NewDecoder(bytes.NewReader(text))
	d.KnownFields(true)
	if err := d.Decode(into); err != nil {
		return fmt.Errorf("%s: %w", filepath.Base(path), err)
	}
	if err := d.Decode(new(any)); !errors.Is(err, io.EOF) {
		return fmt.Errorf("%s: more than one document", filepath.Base(path))
	}
	return nil
}

// checkConfig holds prometheus.yml to the default of admin.address, to the rules beside it, and to the job that these
// name.
func checkConfig(dir string) (wrong []string) {
	var c scraping
	if err := decode(filepath.Join(dir, "deploy/prometheus/prometheus.yml"), &c); err != nil {
		return []string{err.Error()}
	}
	if len(c.ScrapeConfigs) != 1 || c.ScrapeConfigs[0].JobName != "pgwicket" || len(c.ScrapeConfigs[0].StaticConfigs) != 1 {
		return []string{"prometheus.yml: want the one job pgwicket"}
	}
	example, err := os.ReadFile(filepath.Join(dir, "config.example.yaml"))
	if err != nil {
		return []string{err.Error()}
	}
	for _, target := range c.ScrapeConfigs[0].StaticConfigs[0].Targets {
		if !strings.Contains(string(example), "\n  address: "+target+"\n") {
			wrong = append(wrong, "prometheus.yml: config.example.yaml has no address "+target)
		}
	}
	if want := []string{"pgwicket.rules.yml", "pgwicket.alerts.yml"}; !slices.Equal(c.RuleFiles, want) {
		wrong = append(wrong, fmt.Sprintf("prometheus.yml: rule_files are %q, want %q", c.RuleFiles, want))
	}
	if c.Global.ScrapeInterval <= 0 || c.Global.EvaluationInterval <= 0 {
		wrong = append(wrong, "prometheus.yml: no scrape_interval or evaluation_interval")
	}
	return wrong
}

// checkRules holds the rules to the series, the alerts to the manual and to their tests, and the tests to the alerts.
func checkRules(dir string) (wrong []string) {
	k, err := seriesOf(dir)
	if err != nil {
		return []string{err.Error()}
	}
	alerts := map[string]rulefmt.Rule{}
	for _, file := range []string{"pgwicket.rules.yml", "pgwicket.alerts.yml"} {
		groups, errs := rulefmt.ParseFile(filepath.Join(dir, "deploy/prometheus", file), false, model.LegacyValidation, promql, slog.New(slog.DiscardHandler))
		if len(errs) > 0 {
			return []string{errors.Join(errs...).Error()}
		}
		for _, g := range groups.Groups {
			for _, r := range g.Rules {
				result, bad := k.query(r.Expr)
				wrong = append(wrong, bad...)
				if r.Record != "" {
					k.series[r.Record] = result
					continue
				}
				alerts[r.Alert] = r
				wrong = append(wrong, annotated(r, result)...)
			}
		}
	}
	wrong = append(wrong, checkRunbooks(dir, alerts)...)
	return append(wrong, checkUnitTests(dir, k, alerts)...)
}

// annotated says what an alert lacks for whoever is paged.
func annotated(r rulefmt.Rule, result names) (wrong []string) {
	if s := r.Labels["severity"]; s != "warning" && s != "critical" {
		wrong = append(wrong, fmt.Sprintf("%s: severity %q", r.Alert, s))
	}
	if got, want := slices.Sorted(maps.Keys(r.Annotations)), []string{"description", "runbook", "summary"}; !slices.Equal(got, want) {
		wrong = append(wrong, fmt.Sprintf("%s: annotations %q, want %q", r.Alert, got, want))
	}
	for _, text := range r.Annotations {
		for _, m := range regexp.MustCompile(`\$labels\.(\w+)`).FindAllStringSubmatch(text, -1) {
			if !result[m[1]] {
				wrong = append(wrong, fmt.Sprintf("%s: %q, but the alert has no label %s", r.Alert, text, m[1]))
			}
		}
	}
	if got, want := r.Annotations["runbook"], "docs/monitoring.md#"+strings.ToLower(r.Alert); got != want {
		wrong = append(wrong, fmt.Sprintf("%s: runbook %q, want %q", r.Alert, got, want))
	}
	return wrong
}

// checkRunbooks compares the alerts with the headings under Alerts, both ways, and wants a paragraph below each.
func checkRunbooks(dir string, alerts map[string]rulefmt.Rule) (wrong []string) {
	manual, err := os.ReadFile(filepath.Join(dir, "docs/monitoring.md"))
	if err != nil {
		return []string{err.Error()}
	}
	headed := names{}
	for _, m := range regexp.MustCompile(`(?m)^### (Pgwicket\w+)\n\n(.?)`).FindAllStringSubmatch(string(manual), -1) {
		headed[m[1]] = true
		if _, ok := alerts[m[1]]; !ok {
			wrong = append(wrong, "docs/monitoring.md explains "+m[1]+", which is no alert")
		}
		if m[2] == "" || m[2] == "#" {
			wrong = append(wrong, "docs/monitoring.md says nothing about "+m[1])
		}
	}
	for name := range alerts {
		if !headed[name] {
			wrong = append(wrong, "docs/monitoring.md has no heading "+name)
		}
	}
	return wrong
}

// checkUnitTests wants of each alert a test in which it fires and one in which it does not, and only series that are.
func checkUnitTests(dir string, k known, alerts map[string]rulefmt.Rule) (wrong []string) {
	var u unitTests
	if err := decode(filepath.Join(dir, "deploy/prometheus/pgwicket.test.yml"), &u); err != nil {
		return []string{err.Error()}
	}
	fires, silent := names{}, names{}
	for _, test := range u.Tests {
		for _, in := range test.InputSeries {
			// A constant stands for the numbers: only the name and the labels matter here.
			_, bad := k.query(in.Series)
			wrong = append(wrong, bad...)
		}
		for _, a := range test.AlertRuleTest {
			if _, ok := alerts[a.Alertname]; !ok {
				wrong = append(wrong, "pgwicket.test.yml tests "+a.Alertname+", which is no alert")
			}
			if len(a.ExpAlerts) > 0 {
				fires[a.Alertname] = true
			} else {
				silent[a.Alertname] = true
			}
		}
	}
	for name := range alerts {
		if !fires[name] || !silent[name] {
			wrong = append(wrong, fmt.Sprintf("pgwicket.test.yml: %s fires (%t) and keeps still (%t), want both", name, fires[name], silent[name]))
		}
	}
	return wrong
}

// promtool has Prometheus' own program look at the files. Without it there is nothing to say.
func promtool(dir string) (wrong []string) {
	if _, err := exec.LookPath("promtool"); err != nil {
		return nil
	}
	for _, args := range [][]string{
		{"check", "config", "--lint=all", "--lint-fatal", "prometheus.yml"},
		{"check", "rules", "--lint=all", "--lint-fatal", "pgwicket.rules.yml", "pgwicket.alerts.yml"},
		{"test", "rules", "pgwicket.test.yml"},
	} {
		cmd := exec.Command("promtool", args...)
		cmd.Dir = filepath.Join(dir, "deploy/prometheus")
		if out, err := cmd.CombinedOutput(); err != nil {
			wrong = append(wrong, fmt.Sprintf("promtool %s: %v\n%s", strings.Join(args, " "), err, out))
		}
	}
	return wrong
}

func report(t *testing.T, wrong []string) {
	t.Helper()
	for _, w := range wrong {
		t.Error(w)
	}
}

func TestConfig(t *testing.T) { report(t, checkConfig(root)) }

func TestRules(t *testing.T) { report(t, checkRules(root)) }

func TestPromtool(t *testing.T) {
	if _, err := exec.LookPath("promtool"); err != nil {
		t.Skip("no promtool; on Debian it is in the package prometheus")
	}
	report(t, promtool(root))
	exposition, err := os.Open(filepath.Join(root, "metrics/testdata/exposition.txt"))
	if err != nil {
		t.Fatal(err)
	}
	defer exposition.Close()
	cmd := exec.Command("promtool", "check", "metrics")
	cmd.Stdin = exposition
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("promtool check metrics: %v\n%s", err, out)
	}
}
