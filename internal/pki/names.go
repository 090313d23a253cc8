package pki

import (
	"errors"
	"fmt"
	"net/mail"
	"net/netip"
	"net/url"
	"path/filepath"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	maxCommonName = 64 // RFC 5280, appendix A.1, ub-common-name
	maxRole       = 63 // NAMEDATALEN - 1 of PostgreSQL
	maxDNSName    = 253
	maxLabel      = 63
)

// ServerRequest is a request for the names and addresses of a server. The first name
// becomes the name of its files.
func ServerRequest(names ...string) (r Request, err error) {
	if len(names) == 0 {
		return r, errors.New("name the server as clients connect to it, such as db.example.com or 10.0.0.5")
	}
	r.Kind, r.Name = Server, names[0]
	for _, name := range names {
		if ip, err := netip.ParseAddr(name); err == nil {
			if ip.Zone() != "" || ip.IsUnspecified() || ip.IsMulticast() {
				return r, fmt.Errorf("%q is not the address of a server", name)
			}
			r.IPs = append(r.IPs, ip.Unmap())
		} else if err := checkDNSName(name); err != nil {
			return r, fmt.Errorf("%q %w", name, err)
		} else {
			r.DNS = append(r.DNS, strings.ToLower(name))
		}
		if r.CommonName == "" && len(name) <= maxCommonName {
			r.CommonName = name
		}
	}
	if r.CommonName == "" {
		return r, fmt.Errorf("a common name has at most %d bytes: give a shorter name, too", maxCommonName)
	}
	return r, nil
}

// checkDNSName completes a sentence that begins with the name.
func checkDNSName(name string) error {
	switch {
	case strings.Contains(name, "@"):
		return errors.New("is an e-mail address, not the name of a server")
	case strings.Contains(name, "/"):
		return errors.New("is neither a name nor an address: give one address, not a network or a URL")
	case strings.ContainsFunc(name, unicode.IsSpace):
		return errors.New("has a space, which no name of a server has")
	case strings.ContainsFunc(name, func(c rune) bool { return c >= utf8.RuneSelf }):
		return errors.New("is not ASCII: clients compare the form that begins with xn--, so give that")
	case len(name) > maxDNSName:
		return fmt.Errorf("has %d bytes, and a DNS name has at most %d", len(name), maxDNSName)
	}
	labels := strings.Split(name, ".")
	if labels[0] == "*" {
		if labels = labels[1:]; len(labels) < 2 {
			return errors.New("is a wildcard above a whole domain, which clients refuse: write *.db.example.com")
		}
	}
	for _, label := range labels {
		switch {
		case strings.Contains(label, "*"):
			return errors.New("has a wildcard that is not its whole first part, which clients refuse")
		case label == "":
			return errors.New("has an empty part, so it is no DNS name")
		case len(label) > maxLabel:
			return fmt.Errorf("has a part of %d bytes, and at most %d are allowed", len(label), maxLabel)
		case strings.Trim(strings.ToLower(label), "abcdefghijklmnopqrstuvwxyz0123456789-_") != "", strings.Trim(label, "-") != label:
			return errors.New("is no DNS name: its parts are letters, digits and hyphens")
		}
	}
	return nil
}

// ClientRequest is a request for a client. The user is the role, which becomes the common
// name; an empty one is the name.
func ClientRequest(name, user string, uris ...string) (r Request, err error) {
	r = Request{Kind: Client, Name: name, CommonName: user}
	if user == "" {
		r.CommonName = name
	}
	for _, text := range []string{name, r.CommonName} {
		if err := checkClientName(text); err != nil {
			return r, fmt.Errorf("%q %w", text, err)
		}
	}
	if a, err := mail.ParseAddress(name); err == nil && a.Address == name && strings.Trim(name, printable) == "" {
		r.Emails = []string{name}
	}
	for _, text := range uris {
		u, err := url.Parse(text)
		if err != nil || u.Scheme == "" || u.Host == "" || u.Fragment != "" || strings.ContainsFunc(text, func(c rune) bool { return c >= utf8.RuneSelf }) {
			return r, fmt.Errorf("--uri: %q is no URI such as spiffe://example.com/app", text)
		}
		r.URIs = append(r.URIs, u)
	}
	return r, nil
}

const printable = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_+@"

// checkClientName completes a sentence that begins with the name.
func checkClientName(name string) error {
	if strings.Contains(name, "*") {
		return errors.New("has a wildcard, and a client's certificate is for one name")
	}
	if _, err := netip.ParseAddr(name); err == nil {
		return errors.New("is an address; a client's certificate is for the name of a role, and acl.allow is for addresses")
	}
	return checkCommonName(name, maxRole)
}

func checkCommonName(name string, limit int) error {
	switch {
	case name == "":
		return errors.New("is empty")
	case len(name) > limit:
		return fmt.Errorf("has %d bytes, and at most %d are allowed", len(name), limit)
	case !utf8.ValidString(name):
		return errors.New("is not UTF-8")
	case strings.ContainsFunc(name, func(c rune) bool { return !unicode.IsPrint(c) }):
		return errors.New("has a character that cannot be printed")
	case strings.TrimSpace(name) != name:
		return errors.New("begins or ends with a space")
	}
	return nil
}

// checkFileName refuses names that no file of ours can have.
func checkFileName(name string) error {
	switch {
	case name == "ca":
		return errors.New(`"ca" is the name of the CA's own files: choose another`)
	case strings.ContainsAny(name, `/\`), strings.HasPrefix(name, "."), strings.HasPrefix(name, "-"), len(name) > 200:
		return fmt.Errorf("%q cannot be the name of a file: choose another name, and give the role with --user", name)
	}
	return nil
}

// fileOf is the name of the files of a name.
func fileOf(name string) string { return strings.ReplaceAll(name, "*", "wildcard") }

// readNames reads the file names: serial numbers and the names that they were issued
// under.
func readNames(dir string) (map[string]string, error) {
	path := filepath.Join(dir, "names")
	text, err := readIfThere(path)
	if err != nil {
		return nil, err
	}
	names := make(map[string]string)
	for line := range strings.Lines(string(text)) {
		serial, name, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
		if !ok {
			return nil, fmt.Errorf("%s: %q is not a serial number, a tab and a name", path, line)
		}
		if err := checkFileName(name); err != nil {
			return nil, inFile(path, err)
		}
		names[serial] = name
	}
	return names, nil
}

// addName records the name of a serial number, if it is not there.
func (c *CA) addName(serial, name string) error {
	if c.names[serial] == name {
		return nil
	}
	path := filepath.Join(c.dir, "names")
	text, err := readIfThere(path)
	if err != nil {
		return err
	}
	if err := write(path, append(text, serial+"\t"+name+"\n"...)); err != nil {
		return err
	}
	c.names[serial] = name
	return nil
}
