// Package prometheus_test holds the Prometheus files and the dashboard to the series that a gate really has. It is a
// module of its own, so that Prometheus is no dependency of the product.
package prometheus_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"

	"pgwicket/metrics"
)

var promql = parser.NewParser(parser.Options{})

// names is a set of labels.
type names map[string]bool

// known is what there is to ask for: the labels of each series, and the values of labels that are closed sets.
type known struct {
	series map[string]names
	closed map[string]names
}

// seriesOf reads what a scraper sees of a gate, which the tests of metrics compare with the real thing. The series of Go
// and of the process are asked of a gate's own registry; up is Prometheus'.
func seriesOf(root string) (k known, err error) {
	k = known{series: map[string]names{"up": {"job": true, "instance": true}}, closed: map[string]names{"result": {"success": true, "failure": true}}}
	text, err := os.ReadFile(filepath.Join(root, "metrics/testdata/exposition.txt"))
	if err != nil {
		return k, err
	}
	doctor, err := os.ReadFile(filepath.Join(root, "internal/doctor/report/testdata/metrics.txt"))
	if err != nil {
		return k, err
	}
	text = append(text, doctor...)
	label := regexp.MustCompile(`(\w+)="`)
	for _, m := range regexp.MustCompile(`(?m)^(\w+)(\{.*\})? \S+$`).FindAllStringSubmatch(string(text), -1) {
		k.add(m[1], label.FindAllStringSubmatch(m[2], -1))
	}
	families, err := metrics.New("test").Gatherer().Gather()
	if err != nil {
		return k, err
	}
	for _, f := range families {
		if !strings.HasPrefix(f.GetName(), "pgwicket_") {
			k.add(f.GetName(), nil)
		}
	}
	manual, err := os.ReadFile(filepath.Join(root, "docs/troubleshooting.md"))
	if err != nil {
		return k, err
	}
	_, table, _ := strings.Cut(string(manual), "\n## Outcomes\n")
	table, _, _ = strings.Cut(table, "\n## ")
	outcomes := names{}
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\|").FindAllStringSubmatch(table, -1) {
		outcomes[m[1]] = true
	}
	k.closed["outcome"], k.closed["reason"] = outcomes, outcomes
	return k, nil
}

func (k known) add(series string, found [][]string) {
	has := names{"job": true, "instance": true}
	for _, l := range found {
		has[l[1]] = true
	}
	k.series[series] = has
}

// query checks an expression, and returns the labels of what it yields.
func (k known) query(text string) (result names, wrong []string) {
	expr, err := promql.ParseExpr(text)
	if err != nil {
		return nil, []string{fmt.Sprintf("%s: %v", text, err)}
	}
	c := checker{known: k}
	result = c.labels(expr)
	for i := range c.wrong {
		c.wrong[i] = text + ": " + c.wrong[i]
	}
	return result, c.wrong
}

type checker struct {
	known
	wrong []string
}

func (c *checker) errorf(format string, args ...any) {
	c.wrong = append(c.wrong, fmt.Sprintf(format, args...))
}

// labels returns what an expression's result has, as PromQL has it; a scalar has none (nil).
func (c *checker) labels(node parser.Expr) names {
	switch e := node.(type) {
	case *parser.VectorSelector:
		return c.selector(e)
	case *parser.MatrixSelector:
		return c.labels(e.VectorSelector)
	case *parser.ParenExpr:
		return c.labels(e.Expr)
	case *parser.UnaryExpr:
		return c.labels(e.Expr)
	case *parser.SubqueryExpr:
		return c.labels(e.Expr)
	case *parser.AggregateExpr:
		return c.aggregate(e)
	case *parser.BinaryExpr:
		return c.binary(e)
	case *parser.Call:
		return c.call(e)
	}
	return nil
}

func (c *checker) selector(e *parser.VectorSelector) names {
	has, ok := c.series[e.Name]
	if !ok {
		c.errorf("no gate has the series %s", e.Name)
	}
	for _, m := range e.LabelMatchers {
		if m.Name == model.MetricNameLabel {
			continue
		}
		if ok && !has[m.Name] {
			c.errorf("%s has no label %s", e.Name, m.Name)
		}
		values, closed := c.closed[m.Name]
		if !closed {
			continue
		}
		for v := range strings.SplitSeq(m.Value, "|") {
			if !values[v] {
				c.errorf("%s: %s is never %q", e.Name, m.Name, v)
			}
		}
	}
	return has
}

func (c *checker) aggregate(e *parser.AggregateExpr) names {
	has, result := c.labels(e.Expr), names{}
	for _, l := range e.Grouping {
		result[l] = true
		if !has[l] {
			c.errorf("%s by or without %s, which it has not", e.Op, l)
		}
	}
	if e.Without {
		return without(has, e.Grouping...)
	}
	return result
}

func (c *checker) binary(e *parser.BinaryExpr) names {
	left, right := c.labels(e.LHS), c.labels(e.RHS)
	if left == nil {
		return right
	}
	if m := e.VectorMatching; m != nil {
		for _, l := range m.MatchingLabels {
			if !left[l] && !right[l] {
				c.errorf("matched by %s, which neither side has", l)
			}
		}
		if m.Card == parser.CardOneToOne && !e.Op.IsComparisonOperator() && !m.On {
			return without(left, m.MatchingLabels...)
		}
	}
	return left
}

func (c *checker) call(e *parser.Call) (result names) {
	for _, arg := range e.Args {
		if has := c.labels(arg); has != nil {
			result = has
		}
	}
	switch e.Func.Name {
	case "absent":
		result = names{}
		parser.Inspect(e.Args[0], func(n parser.Node, _ []parser.Node) error {
			if s, ok := n.(*parser.VectorSelector); ok {
				for _, m := range s.LabelMatchers {
					result[m.Name] = m.Type == labels.MatchEqual && m.Name != model.MetricNameLabel
				}
			}
			return nil
		})
	case "histogram_quantile":
		if !result["le"] {
			c.errorf("histogram_quantile of what has no le")
		}
		result = without(result, "le")
	}
	return result
}

func without(has names, gone ...string) names {
	result := names{}
	for l := range has {
		if !slices.Contains(gone, l) {
			result[l] = true
		}
	}
	return result
}
