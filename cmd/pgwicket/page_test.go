//go:build unix

package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"pgwicket/internal/docpage"
)

// pages returns the names of the pages of docs.
func pages(t *testing.T) (names []string) {
	t.Helper()
	paths, err := filepath.Glob("../../docs/*.md")
	if err != nil || len(paths) == 0 {
		t.Fatal(paths, err)
	}
	for _, path := range paths {
		names = append(names, filepath.Base(path))
	}
	return names
}

func readPage(t *testing.T, page string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("../../docs", page))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// blocks returns those of a page of docs, in their order.
func blocks(t *testing.T, page string) []docpage.Block {
	t.Helper()
	return docpage.Read(t, filepath.Join("../../docs", page))
}

var (
	link    = regexp.MustCompile(`\]\(([a-z-]*\.md)?(?:#([^)]+))?\)`)
	heading = regexp.MustCompile(`(?m)^#+ (.*)$`)
	dropped = regexp.MustCompile(`[^\w\- ]`)
)

// TestPagesLinks: what a page of docs refers to within docs has a heading of that
// name.
func TestPagesLinks(t *testing.T) {
	text := make(map[string]string)
	anchors := make(map[string]bool)
	for _, name := range pages(t) {
		text[name] = readPage(t, name)
		for _, m := range heading.FindAllStringSubmatch(text[name], -1) {
			anchors[name+"#"+strings.ReplaceAll(dropped.ReplaceAllString(strings.ToLower(m[1]), ""), " ", "-")] = true
		}
	}
	for name, page := range text {
		for _, m := range link.FindAllStringSubmatch(page, -1) {
			to, anchor := m[1], m[2]
			if to == "" {
				to = name
			}
			if text[to] == "" {
				t.Errorf("docs/%s refers to %s, which is not there", name, to)
			} else if anchor != "" && !anchors[to+"#"+anchor] {
				t.Errorf("docs/%s refers to %s, which has no heading %s", name, to, anchor)
			}
		}
	}
}

// machineOf is the line above a block of the bastion that says where it runs.
var machineOf = regexp.MustCompile(`(On the (machine of the CA|database server|bastion|client)|In the shell on each machine):$`)

// TestPagesPaste: a block can be pasted into a bash that completes at each tab, as one without
// bracketed paste does, and those of the bastion say on which machine they run.
func TestPagesPaste(t *testing.T) {
	labels := 0
	for _, name := range pages(t) {
		lines := strings.Split(readPage(t, name), "\n")
		for _, b := range blocks(t, name) {
			if b.Lang != "sh" && b.Lang != "console" {
				continue
			}
			if strings.Contains(b.Text, "\t") {
				t.Errorf("docs/%s:%d: a tab in a block", name, b.Line)
			}
			if name != "quickstart.md" || b.Line < 1+slices.Index(lines, "## Bastion") {
				continue
			}
			labels++
			above := lines[:b.Line-2] // without the fence
			for len(above) > 0 && above[len(above)-1] == "" {
				above = above[:len(above)-1]
			}
			if last := above[len(above)-1]; !machineOf.MatchString(last) {
				t.Errorf("docs/%s:%d: on which machine? Above is %q", name, b.Line, last)
			}
		}
	}
	if labels < 10 {
		t.Errorf("%d blocks of the bastion", labels)
	}
}
