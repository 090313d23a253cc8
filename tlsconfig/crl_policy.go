package tlsconfig

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"pgwicket/internal/crl"
)

// CRLCheck is which certificates of a client's chain are checked for revocation.
type CRLCheck string

// The values of crl_check.
const (
	CRLCheckChain CRLCheck = "chain" // all, the root too, as in PostgreSQL
	CRLCheckLeaf  CRLCheck = "leaf"  // the client's own
)

// CRLMissing is what happens to a certificate whose issuer has no list.
type CRLMissing string

// The values of crl_missing.
const (
	CRLMissingReject CRLMissing = "reject"
	CRLMissingAllow  CRLMissing = "allow"
)

// CRLStale is what happens to a certificate if every list of its issuer is past its next update and none of them revokes
// it.
type CRLStale string

// The values of crl_stale.
const (
	CRLStaleReject CRLStale = "reject"
	CRLStaleAllow  CRLStale = "allow"
	CRLStaleEnd    CRLStale = "end" // refused, and its open sessions are terminated
)

func (o Options) hasCRLs() bool { return o.CRLFile != "" || o.CRLDir != "" }

func (o Options) crlPolicy() crl.Policy {
	return crl.Policy{
		LeafOnly:     o.CRLCheck == CRLCheckLeaf,
		AllowMissing: o.CRLMissing == CRLMissingAllow,
		AllowStale:   o.CRLStale == CRLStaleAllow,
		Grace:        o.CRLGrace,
	}
}

// checkCRLOptions reports unknown values, and options without effect: an operator who sets one expects that certificates
// are checked for revocation.
func checkCRLOptions(o Options, r *report) {
	for _, c := range []struct {
		key, value string
		words      []string // the known values; nil: any
	}{
		{"crl_file", o.CRLFile, nil},
		{"crl_dir", o.CRLDir, nil},
		{"crl_check", string(o.CRLCheck), []string{string(CRLCheckChain), string(CRLCheckLeaf)}},
		{"crl_missing", string(o.CRLMissing), []string{string(CRLMissingReject), string(CRLMissingAllow)}},
		{"crl_stale", string(o.CRLStale), []string{string(CRLStaleReject), string(CRLStaleAllow), string(CRLStaleEnd)}},
		{"crl_grace", graceText(o.CRLGrace), nil},
	} {
		isPath := c.key == "crl_file" || c.key == "crl_dir"
		switch {
		case c.value == "":
		case c.words != nil && !slices.Contains(c.words, c.value):
			r.errorf(c.key, "%q is not known: write %s", c.value, alternatives(c.words))
		case o.ClientCert == ClientCertNone:
			r.errorf(c.key, "has no effect with client_cert: none: remove it, or set client_cert to require or optional")
		case isPath && o.CAFile == "":
			r.errorf(c.key, "has no effect without ca_file: set it to the CAs that issue the client certificates")
		case !isPath && !o.hasCRLs():
			r.errorf(c.key, "has no effect without revocation lists: remove it, or set crl_file or crl_dir")
		case c.key == "crl_grace" && o.CRLGrace < 0:
			r.errorf(c.key, "is negative: write a duration of 0 or more, like 6h")
		case c.key == "crl_grace" && o.CRLStale == CRLStaleAllow:
			r.errorf(c.key, "has no effect with crl_stale: allow, which uses a list without limit: remove one of the two")
		}
	}
}

// checkCRLURLs reports URLs that "pgwicket fetch" could not use.
func checkCRLURLs(o Options, r *report) {
	if len(o.CRLURLs) > 0 && (o.CRLDir == "" || o.CAFile == "") {
		r.errorf("crl_urls", "has no effect without crl_dir, where pgwicket fetch puts the lists, and ca_file, whose CAs sign them: set both")
	}
	for i, u := range o.CRLURLs {
		if err := crl.CheckURL(u); err != nil {
			r.errorf(fmt.Sprintf("crl_urls[%d]", i), "%q %v", withoutPassword(u), err)
		}
	}
}

// withoutPassword returns a URL for messages. One that cannot be parsed may have a password, too.
func withoutPassword(text string) string {
	begin, rest, found := strings.Cut(text, "://")
	at := strings.LastIndex(rest, "@")
	if !found || at < 0 {
		return text
	}
	return begin + "://xxxxx@" + rest[at+1:]
}

func graceText(d time.Duration) string {
	if d == 0 {
		return ""
	}
	return d.String()
}

// alternatives joins words for a sentence: "a, b or c".
func alternatives(words []string) string {
	last := len(words) - 1
	return strings.Join(words[:last], ", ") + " or " + words[last]
}

// describePolicy returns what differs from the default, in parentheses; empty if nothing does.
func describePolicy(p crl.Policy) string {
	var changed []string
	if p.LeafOnly {
		changed = append(changed, "only the client's own certificate")
	}
	if p.AllowMissing {
		changed = append(changed, "missing lists allowed")
	}
	if p.AllowStale {
		changed = append(changed, "stale lists allowed")
	}
	if p.Grace > 0 {
		changed = append(changed, fmt.Sprintf("grace of %v after the next update", p.Grace))
	}
	if changed == nil {
		return ""
	}
	return " (" + strings.Join(changed, ", ") + ")"
}

// ListProblems returns what is wrong with crl_urls, and nothing else.
func ListProblems(o Options) []Problem {
	var r report
	checkCRLURLs(o, &r)
	return r.problems
}
