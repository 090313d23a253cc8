package prometheus_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// dashboard is as much of Grafana's model as ours uses: a key that is not here is a typo, which Grafana would ignore.
type dashboard struct {
	UID           string            `json:"uid"`
	Title         string            `json:"title"`
	Description   string            `json:"description"`
	Tags          []string          `json:"tags"`
	SchemaVersion int               `json:"schemaVersion"`
	Version       int               `json:"version"`
	Editable      bool              `json:"editable"`
	GraphTooltip  int               `json:"graphTooltip"`
	Refresh       string            `json:"refresh"`
	Time          map[string]string `json:"time"`
	Timezone      string            `json:"timezone"`
	Links         []any             `json:"links"`
	Annotations   struct {
		List []struct {
			Name        string     `json:"name"`
			Enable      bool       `json:"enable"`
			Datasource  datasource `json:"datasource"`
			IconColor   string     `json:"iconColor"`
			Expr        string     `json:"expr"`
			Step        string     `json:"step"`
			TitleFormat string     `json:"titleFormat"`
			TextFormat  string     `json:"textFormat"`
		} `json:"list"`
	} `json:"annotations"`
	Templating struct {
		List []variable `json:"list"`
	} `json:"templating"`
	Panels []panel `json:"panels"`
}

type datasource struct {
	Type string `json:"type"`
	UID  string `json:"uid"`
}

type variable struct {
	Name        string          `json:"name"`
	Label       string          `json:"label"`
	Type        string          `json:"type"`
	Datasource  *datasource     `json:"datasource"`
	Query       json.RawMessage `json:"query"`
	Definition  string          `json:"definition"`
	Refresh     int             `json:"refresh"`
	Sort        int             `json:"sort"`
	Multi       bool            `json:"multi"`
	IncludeAll  bool            `json:"includeAll"`
	AllValue    string          `json:"allValue"`
	Current     any             `json:"current"`
	Hide        int             `json:"hide"`
	Options     []any           `json:"options"`
	Regex       string          `json:"regex"`
	SkipURLSync bool            `json:"skipUrlSync"`
}

type panel struct {
	Type        string         `json:"type"`
	ID          int            `json:"id"`
	Title       string         `json:"title"`
	Description string         `json:"description"`
	Collapsed   bool           `json:"collapsed"`
	Panels      []any          `json:"panels"`
	Datasource  *datasource    `json:"datasource"`
	GridPos     position       `json:"gridPos"`
	Options     map[string]any `json:"options"`
	FieldConfig struct {
		Defaults struct {
			Unit       string         `json:"unit"`
			Min        *float64       `json:"min"`
			Max        *float64       `json:"max"`
			Decimals   *int           `json:"decimals"`
			Color      map[string]any `json:"color"`
			Thresholds map[string]any `json:"thresholds"`
			Mappings   []any          `json:"mappings"`
			Custom     map[string]any `json:"custom"`
		} `json:"defaults"`
		Overrides []any `json:"overrides"`
	} `json:"fieldConfig"`
	Targets []target `json:"targets"`
}

type position struct{ H, W, X, Y int }

type target struct {
	RefID        string     `json:"refId"`
	Datasource   datasource `json:"datasource"`
	Expr         string     `json:"expr"`
	LegendFormat string     `json:"legendFormat"`
	Exemplar     bool       `json:"exemplar"`
	Instant      bool       `json:"instant"`
	Range        *bool      `json:"range"`
}

// ours is the data source that the reader chooses.
var ours = datasource{"prometheus", "${datasource}"}

// expand puts into an expression what Grafana would.
var expand = strings.NewReplacer("$__rate_interval", "1m", "$job", ".+", "$instance", ".+")

func readDashboard(dir string) (d dashboard, err error) {
	text, err := os.ReadFile(filepath.Join(dir, "deploy/grafana/pgwicket.json"))
	if err != nil {
		return d, err
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&d); err != nil {
		return d, fmt.Errorf("pgwicket.json: %w", err)
	}
	return d, nil
}

// checkDashboard holds every expression and legend to the series, and every panel to its place.
func checkDashboard(dir string) (wrong []string) {
	d, err := readDashboard(dir)
	if err != nil {
		return []string{err.Error()}
	}
	k, err := seriesOf(dir)
	if err != nil {
		return []string{err.Error()}
	}
	wrong = append(d.variables(k), d.layout()...)
	for _, p := range d.Panels {
		for _, complaint := range p.check(k) {
			wrong = append(wrong, p.Title+": "+complaint)
		}
	}
	for _, a := range d.Annotations.List {
		wrong = append(wrong, k.shown(a.Expr, a.TextFormat)...)
		if a.Datasource != ours || a.Name == "" {
			wrong = append(wrong, fmt.Sprintf("annotation %q asks %v", a.Name, a.Datasource))
		}
	}
	return wrong
}

// shown checks an expression with the text that is made of its labels.
func (k known) shown(expr, legend string) []string {
	result, wrong := k.query(expand.Replace(expr))
	for _, m := range regexp.MustCompile(`\{\{\s*(\w+)\s*\}\}`).FindAllStringSubmatch(legend, -1) {
		if !result[m[1]] {
			wrong = append(wrong, fmt.Sprintf("%s has no label %s for the legend %s", expr, m[1], legend))
		}
	}
	if legend == "" || strings.Count(legend, "{{") != len(regexp.MustCompile(`\{\{\w+\}\}`).FindAllString(legend, -1)) {
		wrong = append(wrong, fmt.Sprintf("%s: legend %q", expr, legend))
	}
	return wrong
}

func (p panel) check(k known) (wrong []string) {
	if p.Type == "row" {
		return nil
	}
	switch p.Type {
	case "timeseries", "stat", "gauge", "bargauge":
	default:
		wrong = append(wrong, "type "+p.Type)
	}
	if p.Description == "" || p.FieldConfig.Defaults.Unit == "" || len(p.Targets) == 0 || len(p.Options) == 0 {
		wrong = append(wrong, "no description, unit, options or target")
	}
	if p.Datasource == nil || *p.Datasource != ours {
		wrong = append(wrong, "does not ask the data source of the variable")
	}
	refs := names{}
	for _, t := range p.Targets {
		wrong = append(wrong, k.shown(t.Expr, t.LegendFormat)...)
		for _, v := range []string{`job=~"$job"`, `instance=~"$instance"`} {
			if strings.Count(t.Expr, v) != strings.Count(t.Expr, "{") {
				wrong = append(wrong, t.Expr+": not every selector has "+v)
			}
		}
		if t.Datasource != ours || t.RefID == "" || refs[t.RefID] {
			wrong = append(wrong, fmt.Sprintf("target %q asks %v", t.RefID, t.Datasource))
		}
		refs[t.RefID] = true
	}
	return wrong
}

// variables are the data source, the job and the instance, in this order, for each asks the one before.
func (d dashboard) variables(k known) (wrong []string) {
	order := []string{"datasource", "job", "instance"}
	if len(d.Templating.List) != len(order) {
		return []string{fmt.Sprintf("%d variables, want %v", len(d.Templating.List), order)}
	}
	for i, v := range d.Templating.List {
		if v.Name != order[i] {
			wrong = append(wrong, fmt.Sprintf("variable %q, want %q", v.Name, order[i]))
		}
		if i == 0 {
			if v.Type != "datasource" || string(v.Query) != `"prometheus"` {
				wrong = append(wrong, fmt.Sprintf("the data source is a %s of %s", v.Type, v.Query))
			}
			continue
		}
		m := regexp.MustCompile(`^label_values\((.*), (\w+)\)$`).FindStringSubmatch(v.Definition)
		if m == nil || v.Type != "query" || v.Datasource == nil || *v.Datasource != ours {
			wrong = append(wrong, fmt.Sprintf("variable %s: a %s of %q", v.Name, v.Type, v.Definition))
			continue
		}
		result, bad := k.query(expand.Replace(m[1]))
		wrong = append(wrong, bad...)
		var query struct{ Query, RefID string }
		if err := json.Unmarshal(v.Query, &query); err != nil || query.Query != v.Definition || m[2] != v.Name || !result[m[2]] {
			wrong = append(wrong, fmt.Sprintf("variable %s: query %s, definition %q, %v", v.Name, v.Query, v.Definition, err))
		}
	}
	return wrong
}

// layout wants 24 columns without overlaps, and what Grafana tells dashboards and panels apart by.
func (d dashboard) layout() (wrong []string) {
	if d.UID != "pgwicket" || d.Title != "pgwicket" || d.SchemaVersion < 39 || d.Time["from"] == "" || d.Time["to"] == "" {
		wrong = append(wrong, "uid, title, schemaVersion or time")
	}
	ids, taken := map[int]bool{}, map[[2]int]string{}
	for _, p := range d.Panels {
		if ids[p.ID] || p.Title == "" {
			wrong = append(wrong, fmt.Sprintf("panel %d %q: a second one of this id, or without a title", p.ID, p.Title))
		}
		ids[p.ID] = true
		g := p.GridPos
		if g.W < 1 || g.H < 1 || g.X+g.W > 24 {
			wrong = append(wrong, fmt.Sprintf("%s is at %+v", p.Title, g))
		}
		for x := g.X; x < g.X+g.W; x++ {
			for y := g.Y; y < g.Y+g.H; y++ {
				if other, ok := taken[[2]int{x, y}]; ok && other != p.Title {
					wrong = append(wrong, p.Title+" lies over "+other)
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
	}
	return wrong
}

func TestDashboard(t *testing.T) { report(t, checkDashboard(root)) }

// The dashboard shows every series of ours, or says here why not.
func TestDashboardIsComplete(t *testing.T) {
	left := map[string]string{
		"pgwicket_certificate_not_before_timestamp_seconds": "of interest once, when it is loaded",
		"pgwicket_crl_number":                               "for a comparison with the CA",
		"pgwicket_crl_unusable":                             "the status page and the log name the list and the reason",
		"pgwicket_rechecks_total":                           "its rate is acl.recheck_interval",
		"pgwicket_build_info":                               "the variables are made of it",
		"pgwicket_audit_head":                               "for a monitoring system that keeps it, to compare with the file",
		"pgwicket_backend_last_success_timestamp_seconds":   "pgwicket_backend_up has the state, the status page both times",
		"pgwicket_backend_last_failure_timestamp_seconds":   "pgwicket_backend_up has the state, the status page both times",
	}
	text, err := os.ReadFile(filepath.Join(root, "deploy/grafana/pgwicket.json"))
	if err != nil {
		t.Fatal(err)
	}
	exposition, err := os.ReadFile(filepath.Join(root, "metrics/testdata/exposition.txt"))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`(?m)^# TYPE (\w+) `).FindAllStringSubmatch(string(exposition), -1) {
		if shown := strings.Contains(string(text), m[1]); !shown && left[m[1]] == "" {
			t.Errorf("no panel shows %s", m[1])
		}
	}
}
