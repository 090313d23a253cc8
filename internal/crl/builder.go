package crl

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"
)

// MaxSize is the size of the largest file that Builder.Add accepts, some twenty million revoked certificates. It keeps
// offsets into a list within 32 bits.
const MaxSize = 1 << 30

// Builder makes a Set. Fill in the fields, call Add for each file, then Set once.
type Builder struct {
	Policy   Policy
	CAs      []*x509.Certificate // the configured ones, which a list should come from
	Previous *Set                // the set in use before a reload; nil: none
	Now      time.Time

	CAOption string // names where the CAs are configured, in messages
	Peers    string // whose certificates are checked, in messages: "clients" or "servers"

	set      *Set
	seen     map[[sha256.Size]byte]bool
	problems []Problem // of the call that is running
	failed   bool      // an error has been reported
}

// Problem is a fault of a list, or something about the lists that an operator should know.
type Problem struct {
	Option  string // that names the file
	Text    string // one line: what is wrong and what to do
	Warning bool   // the set can be used all the same
}

func (b *Builder) errorf(option, format string, args ...any) {
	b.failed = true
	b.problems = append(b.problems, Problem{Option: option, Text: fmt.Sprintf(format, args...)})
}

func (b *Builder) warnf(option, format string, args ...any) {
	b.problems = append(b.problems, Problem{Option: option, Text: fmt.Sprintf(format, args...), Warning: true})
}

// report returns the problems of this call, and forgets them.
func (b *Builder) report() []Problem {
	problems := b.problems
	b.problems = nil
	return problems
}

func (b *Builder) init() {
	if b.set == nil {
		b.set = &Set{policy: b.Policy, byIssuer: map[string][]*List{}}
		b.seen = map[[sha256.Size]byte]bool{}
	}
}

// Add reads every list of a file, with the name of the option that names it. A list that is there twice is read once. The
// data must not change afterwards.
func (b *Builder) Add(option, file string, data []byte) []Problem {
	b.init()
	if len(data) > MaxSize {
		b.errorf(option, "%q has %d bytes: the limit is %d", file, len(data), MaxSize)
		return b.report()
	}
	lists, isPEM, err := Split(data)
	if err != nil {
		b.errorf(option, "%q %v", file, err)
		return b.report()
	}
	for i, der := range lists {
		sum := sha256.Sum256(der)
		if b.seen[sum] {
			continue
		}
		b.seen[sum] = true
		list, err := Parse(der)
		list.source = source{option: option, file: file}
		if isPEM {
			list.source.block = i + 1
		}
		if err == nil {
			err = b.findSigner(list)
		}
		if err != nil {
			b.errorf(option, "%s %v", list, err)
			continue
		}
		b.set.add(list)
	}
	return b.report()
}

// Set returns the set, and warns of lists that are older than before or stale, and of CAs without a list; option is the
// one to change for those. After an error of Add the set must not be used, and there are no warnings.
func (b *Builder) Set(option string) (*Set, []Problem) {
	b.init()
	if b.failed {
		return b.set, nil
	}
	if b.Previous != nil {
		b.keepNewer(b.Previous)
	}
	b.warnOfStale()
	b.warnOfMissing(option)
	return b.set, b.report()
}

// findSigner finds the CA that signed a list. The name only says where to look: two CAs may have the same one, and a list
// belongs to the CA whose key has signed it.
func (b *Builder) findSigner(list *List) error {
	named := false
	for _, c := range b.CAs {
		if !bytes.Equal(c.RawSubject, list.issuer) {
			continue
		}
		named = true
		if !list.SignedBy(c) {
			continue
		}
		list.signer = c
		if maySign(c) {
			return nil // of two certificates for one key, one that allows CRLs is enough
		}
	}
	switch {
	case list.signer != nil:
		return errors.New("is signed by a CA whose certificate does not allow it to sign CRLs (keyUsage without cRLSign): " +
			"have the CA's certificate issued again")
	case named:
		return fmt.Errorf("is not signed by the CA of that name in %[1]s: "+
			"fetch it again, and check that %[1]s holds the CA's current certificate", b.CAOption)
	default:
		// Not an error: the peers may send the certificate of the intermediate CA.
		b.warnf(list.source.option, "%s is not issued by a CA of %s: it is used only for %s that send that CA's certificate",
			list, b.CAOption, b.Peers)
		return nil
	}
}

// keepNewer keeps the newest list of the previous set where the newest one now is older. The older one may be a copy from
// a backup, from a mirror that is behind, or the work of somebody who wants to undo a revocation; it must not undo one.
// Both lists are used, so that what either revokes is revoked, and the kept one goes on to the next reload.
func (b *Builder) keepNewer(previous *Set) {
	var kept []*List
	for _, old := range previous.lists {
		var latest *List
		for _, list := range b.set.lists {
			if list.replaces(old) && (latest == nil || list.compare(latest) > 0) {
				latest = list
			}
		}
		// Without any list there is nothing to compare: the operator has removed it, and its CA has none now.
		if latest == nil || latest.compare(old) >= 0 || previous.hasNewer(old) {
			continue
		}
		b.warnf(latest.source.option, "%s goes back from %s to %s, so the newer list from before the reload is kept in use with it: "+
			"install the CA's newest list, or restart pgwicket to drop the kept one", latest, old.age(latest), latest.age(old))
		again := *old // a copy, since sessions are using old
		again.kept, again.signer = true, latest.signer
		kept = append(kept, &again)
	}
	for _, list := range kept {
		b.set.add(list)
	}
}

// warnOfStale warns of lists that are not in date, unless another list replaces them: a directory may have old lists.
func (b *Builder) warnOfStale() {
	policy := b.Policy
	for _, list := range b.set.lists {
		if list.kept || list.InDate(b.Now, 0) || slices.ContainsFunc(b.set.lists, func(other *List) bool {
			return other.InDate(b.Now, 0) && other.replaces(list)
		}) {
			continue
		}
		option, why := list.source.option, list.staleness(b.Now)
		switch {
		case b.Now.Before(list.thisUpdate), !policy.AllowStale && !list.InDate(b.Now, policy.Grace):
			b.warnf(option, "%s: certificates of this CA are refused until a newer CRL is installed", why)
		case policy.AllowStale:
			b.warnf(option, "%s and is used all the same (crl_stale: allow): certificates revoked since then are admitted until a newer CRL is installed", why)
		default:
			b.warnf(option, "%s and is used until %s (crl_grace): after that, certificates of this CA are refused until a newer CRL is installed",
				why, timeText(list.nextUpdate.Add(policy.Grace)))
		}
	}
}

// warnOfMissing warns of every CA that has no list, which is easily overlooked for a root.
func (b *Builder) warnOfMissing(option string) {
	for _, c := range b.CAs {
		// With LeafOnly a CA that has issued another CA of the file hardly issues certificates of clients as well. If it
		// does and a missing list refuses, the refusals show it.
		if !c.IsCA || b.Policy.LeafOnly && !b.Policy.AllowMissing && b.issuedCA(c) {
			continue
		}
		if slices.ContainsFunc(b.set.Lists(c.RawSubject), func(l *List) bool { return l.SignedBy(c) }) {
			continue
		}
		if b.Policy.AllowMissing {
			b.warnf(option, "there is no CRL from %q of %s: certificates that it has issued cannot be revoked (crl_missing: allow)",
				nameText(c.RawSubject), b.CAOption)
		} else {
			b.warnf(option, "there is no CRL from %q of %s: certificates that it has issued are refused until there is one",
				nameText(c.RawSubject), b.CAOption)
		}
	}
}

// issuedCA reports whether a CA has issued another one of the configured CAs.
func (b *Builder) issuedCA(issuer *x509.Certificate) bool {
	return slices.ContainsFunc(b.CAs, func(c *x509.Certificate) bool {
		return c.IsCA && !c.Equal(issuer) && bytes.Equal(c.RawIssuer, issuer.RawSubject)
	})
}
