package tlsconfig

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// CRLCheck is which certificates of a client's chain the revocation lists are asked about.
type CRLCheck string

// Which can be asked about.
const (
	CRLCheckChain CRLCheck = "chain" // every one, the root included, as in PostgreSQL
	CRLCheckLeaf  CRLCheck = "leaf"  // the client's own
)

// CRLMissing is what becomes of a certificate whose issuer has no list.
type CRLMissing string

// What can become of it.
const (
	CRLMissingReject CRLMissing = "reject"
	CRLMissingAllow  CRLMissing = "allow"
)

// CRLStale is what becomes of a certificate when every list of its issuer is past its next update, and none of them
// revokes it.
type CRLStale string

// What can become of it.
const (
	CRLStaleReject CRLStale = "reject"
	CRLStaleAllow  CRLStale = "allow"
	CRLStaleEnd    CRLStale = "end" // rejected, and the sessions that it has open are ended
)

// crlPolicy is what the lists are asked, and what their silence means. The zero value is PostgreSQL's.
type crlPolicy struct {
	leafOnly     bool
	allowMissing bool
	allowStale   bool
	grace        time.Duration // how long after its next update a list is still in date
}

func (o Options) hasCRLs() bool { return o.CRLFile != "" || o.CRLDir != "" }

func (o Options) crlPolicy() crlPolicy {
	return crlPolicy{
		leafOnly:     o.CRLCheck == CRLCheckLeaf,
		allowMissing: o.CRLMissing == CRLMissingAllow,
		allowStale:   o.CRLStale == CRLStaleAllow,
		grace:        o.CRLGrace,
	}
}

// checkCRLOptions looks for words that are none, and for options that would do nothing: whoever writes one of them
// believes that certificates are checked for revocation.
func checkCRLOptions(o Options, r *report) {
	for _, c := range []struct {
		key, value string
		words      []string // that may stand there
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
			r.errorf(c.key, "has no effect with client_cert: none: remove it, or ask for client certificates")
		case isPath && o.CAFile == "":
			r.errorf(c.key, "has no effect without ca_file: set it to the CAs that issue the client certificates")
		case !isPath && !o.hasCRLs():
			r.errorf(c.key, "has no effect without revocation lists: remove it, or set crl_file or crl_dir")
		case c.key == "crl_grace" && o.CRLGrace < 0:
			r.errorf(c.key, "is negative: write a duration of 0 or more, like 6h")
		case c.key == "crl_grace" && o.CRLStale == CRLStaleAllow:
			r.errorf(c.key, "has no effect with crl_stale: allow, where a list counts for ever: remove one of the two")
		}
	}
}

func graceText(d time.Duration) string {
	if d == 0 {
		return ""
	}
	return d.String()
}

// alternatives joins words as a sentence does.
func alternatives(words []string) string {
	last := len(words) - 1
	return strings.Join(words[:last], ", ") + " or " + words[last]
}

// describe says what an operator has changed.
func (p crlPolicy) describe() string {
	var changed []string
	if p.leafOnly {
		changed = append(changed, "its own certificate only")
	}
	if p.allowMissing {
		changed = append(changed, "a missing list allowed")
	}
	if p.allowStale {
		changed = append(changed, "a stale one allowed")
	}
	if p.grace > 0 {
		changed = append(changed, fmt.Sprintf("lists in date for %v more", p.grace))
	}
	if changed == nil {
		return ""
	}
	return " (" + strings.Join(changed, ", ") + ")"
}
