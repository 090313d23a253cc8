//go:build unix

package main

import (
	"os"
	"path/filepath"
	"regexp"
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
