package certs_test

import (
	"bytes"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"pgwicket/internal/certs"
	"pgwicket/internal/tlstest/chains"
)

// TestOpenSSL asks "openssl verify" and Verify about the same chains. Where they
// differ, the case says why.
func TestOpenSSL(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cases, err := chains.All(filepath.Join(dir, "made"))
	if err != nil {
		t.Fatal(err)
	}
	if len(cases) < 150 {
		t.Fatalf("%d cases are too few", len(cases))
	}
	admitted := 0
	var differences strings.Builder
	for i, c := range cases {
		files := filepath.Join(dir, strconv.Itoa(i))
		if err := c.Write(files); err != nil {
			t.Fatal(err)
		}
		openssl, text := askOpenSSL(t, files, c)
		ours := judge(c)
		checkWords(t, c.Name, ours)
		if openssl {
			admitted++
		}
		if c.Stricter != "" {
			fmt.Fprintf(&differences, "%s\t%s\n", c.Name, c.Stricter)
		}
		switch {
		case c.Stricter != "" && openssl && ours != nil:
		case c.Stricter != "":
			t.Errorf("%s: the difference is gone: OpenSSL admits: %v, we say %v", c.Name, openssl, ours)
		case openssl != (ours == nil):
			t.Errorf("%s: OpenSSL admits: %v (%s), we say %v", c.Name, openssl, text, ours)
		case !openssl:
			checkReason(t, c.Name, text, ours)
		}
	}
	checkDifferences(t, differences.String())
	t.Logf("%d cases, OpenSSL admits %d of them", len(cases), admitted)
}

// checkDifferences compares the list in testdata with the cases.
func checkDifferences(t *testing.T, text string) {
	t.Helper()
	lines := strings.SplitAfter(text, "\n")
	slices.Sort(lines) // some cases are made in no order
	want, err := os.ReadFile(filepath.Join("testdata", "differences.txt"))
	if err != nil || string(want) != strings.Join(lines, "") {
		t.Errorf("testdata/differences.txt (%v) should be:\n%s", err, strings.Join(lines, ""))
	}
}

// judge is what the gate does: all is read, or nothing is admitted.
func judge(c chains.Case) error {
	pool, err := poolOf(c)
	if err != nil {
		return err
	}
	leaf, err := certs.Parse(c.Leaf)
	if err != nil {
		return err
	}
	var sent []*certs.Certificate
	for _, der := range c.Sent {
		s, err := certs.Parse(der)
		if err != nil {
			return err
		}
		sent = append(sent, s)
	}
	return second(certs.Verify(leaf, sent, pool, optionsOf(c)))
}

func poolOf(c chains.Case) (*certs.Pool, error) {
	var ca []*certs.Certificate
	for _, der := range c.CA {
		a, err := certs.Parse(der)
		if err != nil {
			return nil, err
		}
		ca = append(ca, a)
	}
	if block, _ := pem.Decode(c.Trusted); block != nil {
		a, err := certs.ParseTrusted(block.Bytes)
		if err != nil {
			return nil, err
		}
		ca = append(ca, a)
	}
	return certs.NewPool("ca_file", ca, c.Partial), nil
}

func optionsOf(c chains.Case) certs.Options {
	o := certs.Options{MinSecurityBits: []int{-1, 80, 112, 128, 192, 256}[c.Level], Time: c.At}
	if c.Server {
		o.Purpose = certs.Server
	}
	return o
}

// askOpenSSL returns its verdict and what it says.
func askOpenSSL(t *testing.T, files string, c chains.Case) (good bool, text string) {
	t.Helper()
	args := []string{
		"verify", "-no-CApath", "-no-CAstore", "-CAfile", filepath.Join(files, "ca.pem"),
		"-purpose", c.Purpose(), "-auth_level", strconv.Itoa(c.Level),
	}
	if len(c.Sent) > 0 {
		args = append(args, "-untrusted", filepath.Join(files, "sent.pem"))
	}
	if c.Partial {
		args = append(args, "-partial_chain")
	}
	if !c.At.IsZero() {
		args = append(args, "-attime", strconv.FormatInt(c.At.Unix(), 10))
	}
	cmd := exec.Command("openssl", append(args, filepath.Join(files, "leaf.pem"))...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	if _, ok := err.(*exec.ExitError); err != nil && !ok {
		t.Fatal(err)
	}
	return err == nil, out.String()
}

var errorLine = regexp.MustCompile(`error (\d+) at`)

// reasons are what we may say where OpenSSL says X509_V_ERR_*.
var reasons = map[string][]certs.Reason{
	"9":  {certs.NotYetValid},
	"10": {certs.Expired},
	"47": {certs.NameConstraint},
	"48": {certs.NameConstraint},
	"49": {certs.NameConstraint},
	"51": {certs.NameConstraint},
	"53": {certs.NameConstraint},
	"26": {certs.WrongPurpose, certs.Invalid},
	"34": {certs.Invalid},
	"66": {certs.WeakKey},
	"67": {certs.WeakKey},
	"68": {certs.WeakKey},
	"18": {certs.UnknownCA},
	"19": {certs.UnknownCA},
	"20": {certs.UnknownCA, certs.Invalid},
	"2":  {certs.UnknownCA},
}

// checkReason holds our reason against OpenSSL's first one.
func checkReason(t *testing.T, name, text string, ours error) {
	t.Helper()
	m := errorLine.FindStringSubmatch(text)
	e, ok := ours.(*certs.Error)
	if m == nil || !ok {
		return // one of the certificates cannot be read
	}
	want, known := reasons[m[1]]
	if known && !strings.Contains(fmt.Sprint(want), string(e.Reason)) {
		t.Errorf("%s: OpenSSL says %q, we say %s: %v", name, text, e.Reason, ours)
	}
}
