package config

import (
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"
)

var (
	keyRow   = regexp.MustCompile("(?m)^\\| (`[^|]*) \\| ([^|]*) \\|[^|\n]*\\|$")
	ruleRow  = regexp.MustCompile("(?m)^\\| `(?:host|local)[^|]*` \\| `(\\{[^`]*\\})`")
	quoted   = regexp.MustCompile("`([^`]*)`")
	ruleKeys = regexp.MustCompile(`[{,] ?([a-z_]+):`)
)

// Each of our keys in the tables of docs/coming-from.md is one that there is,
// and each rule of them has only keys of a rule.
func TestComingFromNamesOurKeys(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../docs/coming-from.md")
	if err != nil {
		t.Fatal(err)
	}
	known := keyPaths(reflect.TypeFor[file](), "")
	named := 0
	for _, row := range keyRow.FindAllStringSubmatch(string(text), -1) {
		if strings.Contains(row[1], ".conf`") || strings.Contains(row[1], ".ini`") {
			if row[2] != "`pgwicket.yaml`" {
				t.Errorf("a table of %s beside %s", row[1], row[2])
			}
			continue
		}
		for _, m := range quoted.FindAllStringSubmatch(row[2], -1) {
			named++
			if _, ok := known[m[1]]; !ok {
				t.Errorf("beside %s stands %s, which is no key", row[1], m[1])
			}
		}
	}
	rules := ruleRow.FindAllStringSubmatch(string(text), -1)
	for _, row := range rules {
		for _, m := range ruleKeys.FindAllStringSubmatch(row[1], -1) {
			_, ok := known["acl.rules[]."+m[1]]
			_, nested := known["acl.rules[].certificate."+m[1]]
			if !ok && !nested {
				t.Errorf("%s in %s is no key of a rule", m[1], row[1])
			}
		}
	}
	if named < 60 || len(rules) < 5 {
		t.Errorf("%d keys and %d rules have been found", named, len(rules))
	}
}
