package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"pgwicket/internal/doctor/report"
)

// doctorForms says how to write a report.
type doctorForms struct {
	json, all              bool
	html, metrics, compare string // files; empty: none
	waivers                []report.Waiver
}

func (forms *doctorForms) flags(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&forms.json, "json", false, "print JSON")
	cmd.Flags().BoolVar(&forms.all, "all", false, "print the checks that passed, too")
	fileFlag(cmd, &forms.html, "html", "write a page to this `file`, too")
	fileFlag(cmd, &forms.metrics, "metrics", "write metrics for Prometheus to this `file`, too")
	fileFlag(cmd, &forms.compare, "compare", "print what has changed since the report in this `file`, which --json has written")
}

// readWaivers reads those of the command line and those of a file.
func (forms *doctorForms) readWaivers(texts []string, file string) error {
	for _, text := range texts {
		w, err := report.ParseWaiver(text)
		if err != nil {
			return fmt.Errorf("--waive: %w", err)
		}
		forms.waivers = append(forms.waivers, w)
	}
	if file == "" {
		return nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("--waivers: %w", err)
	}
	more, err := report.ParseWaivers(string(text))
	if err != nil {
		return fmt.Errorf("--waivers: %s: %w", file, err)
	}
	forms.waivers = append(forms.waivers, more...)
	return nil
}

// write applies the waivers and writes the report in every form that was asked for.
func (forms doctorForms) write(s streams, r report.Report) int {
	r.Waive(forms.waivers)
	if err := forms.writeTo(s.out, r); err != nil {
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

// writeTo writes the report: to its files, and to the standard output.
func (forms doctorForms) writeTo(out io.Writer, r report.Report) error {
	if err := replaceFile(forms.html, 0o600, r.WriteHTML); err != nil {
		return err
	}
	if err := replaceFile(forms.metrics, 0o644, r.WriteMetrics); err != nil { // node_exporter runs as another account
		return err
	}
	switch {
	case forms.compare != "":
		text, err := os.ReadFile(forms.compare)
		if err != nil {
			return err
		}
		old, err := report.Read(text)
		if err != nil {
			return fmt.Errorf("%s: %w", forms.compare, err)
		}
		return r.WriteChanges(out, old)
	case forms.json:
		return r.WriteJSON(out)
	}
	return r.WriteText(out, forms.all)
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
	f, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // fails after the rename
	_, err = f.Write(b.Bytes())
	if err == nil {
		err = f.Chmod(mode)
	}
	if err2 := f.Close(); err == nil {
		err = err2
	}
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), name)
}
