package report

import (
	"bytes"
	"fmt"
	"io"
	"os"

	"pgwicket/internal/statefile"
)

// Forms say how a report is written. The zero value is text.
type Forms struct {
	JSON, All              bool
	HTML, Metrics, Compare string // files; empty: none
	Waivers                []Waiver
}

// ReadWaivers reads those of the command line and those of a file.
func (f *Forms) ReadWaivers(texts []string, file string) error {
	for _, text := range texts {
		w, err := ParseWaiver(text)
		if err != nil {
			return fmt.Errorf("--waive: %w", err)
		}
		f.Waivers = append(f.Waivers, w)
	}
	if file == "" {
		return nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("--waivers: %w", err)
	}
	more, err := ParseWaivers(string(text))
	if err != nil {
		return fmt.Errorf("--waivers: %s: %w", file, err)
	}
	f.Waivers = append(f.Waivers, more...)
	return nil
}

// Write writes the report: to its files, and to the standard output.
func (f Forms) Write(out io.Writer, r Report) error {
	if err := replaceFile(f.HTML, 0o600, r.WriteHTML); err != nil {
		return err
	}
	if err := replaceFile(f.Metrics, 0o644, r.WriteMetrics); err != nil { // node_exporter runs as another account
		return err
	}
	switch {
	case f.Compare != "":
		text, err := os.ReadFile(f.Compare)
		if err != nil {
			return err
		}
		old, err := Read(text)
		if err != nil {
			return fmt.Errorf("%s: %w", f.Compare, err)
		}
		return r.WriteChanges(out, old)
	case f.JSON:
		return r.WriteJSON(out)
	}
	return r.WriteText(out, f.All)
}

// replaceFile writes a file whole or not at all, so that a collector never reads a part of it.
func replaceFile(name string, mode os.FileMode, write func(io.Writer) error) error {
	if name == "" {
		return nil
	}
	var b bytes.Buffer
	if err := write(&b); err != nil {
		return err
	}
	return statefile.Replace(name, b.Bytes(), mode, nil)
}
