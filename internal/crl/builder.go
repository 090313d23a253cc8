package crl

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"time"

	"pgwicket/internal/certs"
)

// MaxSize is the size of the largest file that Builder.Add accepts, some twenty million revoked certificates. It keeps
// offsets into a list within 32 bits.
const MaxSize = 1 << 30

// Builder makes a Set. Fill in the fields, call Add for each file, then Set once.
type Builder struct {
	Policy   Policy
	CAs      []*certs.Certificate // the configured ones, which a list should come from
	Previous *Set                 // the set in use before a reload; nil: none
	Now      time.Time
	// KeepGone keeps the lists of the set in use whose CA has none any more, where the policy would
	// admit its certificates then: nobody knows whether a file is gone on purpose.
	KeepGone bool

	// MinSecurityBits is the strength below which a signature is warned of; OpenSSL verifies lists at every level.
	MinSecurityBits int

	CAOption string // names where the CAs are configured, in messages
	Peers    string // whose certificates are checked, in messages: "clients" or "servers"

	set      *Set
	seen     map[[sha256.Size]byte]bool
	deltas   []*List
	lost     map[string]bool // the files that could not be read
	problems []Problem       // of the call that is running
	failed   bool            // an error has been reported
}

// Problem is a fault of a list, or something about the lists that an operator should know.
type Problem struct {
	Option  string // that names the file
	Text    string // one line: what is wrong and what to do
	Warning bool   // the set can be used all the same
	Stray   bool   // a warning of a file of a directory that holds no list and is left aside
}

func (b *Builder) errorf(option, format string, args ...any) {
	b.failed = true
	b.problems = append(b.problems, Problem{Option: option, Text: fmt.Sprintf(format, args...)})
}

func (b *Builder) warnf(option, format string, args ...any) {
	b.problems = append(b.problems, Problem{Option: option, Text: fmt.Sprintf(format, args...), Warning: true})
}

func (b *Builder) warnOfStray(option, format string, args ...any) {
	b.warnf(option, format+" and is left aside", args...)
	b.problems[len(b.problems)-1].Stray = true
}

// report returns the problems of this call, and forgets them.
func (b *Builder) report() []Problem {
	problems := b.problems
	b.problems = nil
	return problems
}

func (b *Builder) init() {
	if b.set == nil {
		b.set = &Set{policy: b.Policy, byIssuer: map[string][]*List{}, unusable: map[string][]*List{}, onlyRevoke: map[string][]*List{}}
		b.lost = map[string]bool{}
		b.seen = map[[sha256.Size]byte]bool{}
	}
}

// Add reads every list of a file, with the name of the option that names it. A list that is there twice is read once. The
// data must not change afterwards. A file that holds no list is an error. A list that cannot be used is a warning: its CA
// alone has to do without it.
func (b *Builder) Add(option, file string, data []byte) []Problem {
	b.init()
	lists, isPEM, err := b.split(file, data)
	if err != nil {
		b.errorf(option, "%v", err)
		return b.report()
	}
	for i, der := range lists {
		block := 0
		if isPEM {
			block = i + 1
		}
		if err := b.addList(source{option, file, block}, der); err != nil {
			b.errorf(option, "%v", err)
		}
	}
	return b.report()
}

// AddEntry is Add for a file of a directory, of which not every file needs to hold lists: one without is left aside.
func (b *Builder) AddEntry(option, file string, data []byte) []Problem {
	b.init()
	if _, err := certs.Parse(data); err == nil && !b.hadListsIn(file) {
		b.warnOfStray(option, "%q holds a certificate and no CRL,", file)
		return b.report()
	}
	lists, isPEM, err := b.split(file, data)
	switch {
	case errors.Is(err, errNoList) && !b.hadListsIn(file):
		b.warnOfStray(option, "%v,", err)
		return b.report()
	case err != nil:
		b.lose(option, file, err)
		return b.report()
	}
	for i, der := range lists {
		block := 0
		if isPEM {
			block = i + 1
		}
		if err := b.addList(source{option, file, block}, der); err != nil {
			b.lose(option, file, err)
		}
	}
	return b.report()
}

// Unreadable is for a file of a directory that AddEntry would get.
func (b *Builder) Unreadable(option, file string, err error) []Problem {
	b.init()
	b.lose(option, file, err)
	return b.report()
}

// lose leaves out a file that may have held any CA's list.
func (b *Builder) lose(option, file string, err error) {
	b.lost[file] = true
	b.set.unread = err.Error()
	b.warnf(option, "%v: the list that was read from it before stays in use until its next update, and a CA that has no list is not allowed by crl_missing", err)
}

func (b *Builder) hadListsIn(file string) bool {
	return b.Previous != nil && slices.ContainsFunc(slices.Concat(b.Previous.lists, b.Previous.allOnlyRevoke()),
		func(l *List) bool { return l.source.file == file })
}

func (b *Builder) split(file string, data []byte) (lists [][]byte, isPEM bool, err error) {
	if len(data) > MaxSize {
		return nil, false, fmt.Errorf("%q has %d bytes: the limit is %d", file, len(data), MaxSize)
	}
	if lists, isPEM, err = Split(data); err != nil {
		return nil, false, fmt.Errorf("%q %w", file, err)
	}
	return lists, isPEM, nil
}

// addList fails for what is no list of any CA.
func (b *Builder) addList(from source, der []byte) error {
	sum := sha256.Sum256(der)
	if b.seen[sum] {
		return nil
	}
	b.seen[sum] = true
	list, err := Parse(der)
	list.source = from
	if err == nil {
		err = b.findSigner(list)
	}
	switch {
	case errors.Is(err, errDelta):
		b.setSigner(list)
		list.delta = true
		b.deltas = append(b.deltas, list)
		b.set.addOnlyRevoke(list)
		b.warnf(from.option, "%s %v", list, err)
		return nil
	case err != nil && list.issuer.Raw == nil:
		return fmt.Errorf("%s %w", list, err)
	case err != nil:
		b.setSigner(list)
		list.problem = err.Error()
		b.warnf(from.option, "%s %v: the CA's list from before stays in use until its next update, and without one its certificates are refused", list, err)
	case list.algorithm.Bits < b.MinSecurityBits:
		b.warnf(from.option, "%s is signed with %s, which can be forged: have the CA sign it with SHA-256", list, list.algorithm.Name)
	}
	b.set.add(list)
	return nil
}

// Set returns the set, and warns of lists that are older than before or stale, and of CAs without a list; option is the
// one to change for those. After an error of Add the set must not be used, and there are no warnings.
func (b *Builder) Set(option string) (*Set, []Problem) {
	b.init()
	if b.failed {
		return b.set, nil
	}
	for _, delta := range b.deltas {
		if !slices.ContainsFunc(b.set.byIssuer[delta.issuer.Canonical()], delta.sameCA) {
			delta.problem = errDelta.Error()
			b.set.add(delta)
		}
	}
	if b.Previous != nil {
		b.keepOlder(b.Previous)
		b.keepNewer(b.Previous)
		b.keepRevoking(b.Previous)
	}
	b.warnOfStale()
	b.warnOfMissing(option)
	return b.set, b.report()
}

// findSigner finds the CA that signed a list. The name only says where to look: two CAs may have the same one, and a list
// belongs to the CA whose key has signed it.
func (b *Builder) findSigner(list *List) error {
	named := b.setSigner(list)
	switch {
	case list.signer != nil && list.signer.MaySignLists():
	case list.signer != nil:
		b.warnf(list.source.option, "%s is signed by a CA whose certificate does not allow it to sign CRLs (keyUsage without cRLSign): "+
			"it revokes what it lists, and the CA's other certificates are refused as without a list: have the CA's certificate issued again", list)
	case named: // by another CA of that name, perhaps: see Set.decide
		return fmt.Errorf("is not signed by the CA of that name in %[1]s: "+
			"fetch it again, and check that %[1]s holds the CA's current certificate", b.CAOption)
	default:
		// Not an error: the peers may send the certificate of the intermediate CA.
		b.warnf(list.source.option, "%s is not issued by a CA of %s: it is used only for %s that send that CA's certificate",
			list, b.CAOption, b.Peers)
	}
	return nil
}

// setSigner returns whether there is a CA of the list's name, whether or not it has signed the list.
func (b *Builder) setSigner(list *List) (named bool) {
	if list.algorithm == nil || !list.algorithm.Supported() {
		return false
	}
	for _, c := range b.CAs {
		if !c.Subject.Equal(list.issuer) {
			continue
		}
		named = true
		if !list.SignedBy(c) {
			continue
		}
		list.signer = c
		if c.MaySignLists() {
			break // of two certificates for one key, one that allows CRLs is enough
		}
	}
	return named
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
		case b.Now.Before(list.thisUpdate):
			b.warnf(option, "%s: certificates of this CA are refused until then; check the clocks of the CA and of this machine", why)
		case !policy.AllowStale && !list.InDate(b.Now, policy.Grace):
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
		if len(b.set.unusable[c.Subject.Canonical()]) > 0 {
			continue // which has been warned of
		}
		// With LeafOnly a CA that has issued another CA of the file hardly issues certificates of clients as well. If it
		// does and a missing list refuses, the refusals show it.
		if !c.IsCA() || b.Policy.LeafOnly && !b.Policy.AllowMissing && b.issuedCA(c) {
			continue
		}
		if slices.ContainsFunc(b.set.byIssuer[c.Subject.Canonical()], func(l *List) bool { return l.SignedBy(c) }) {
			continue
		}
		if b.Policy.AllowMissing {
			b.warnf(option, "there is no CRL from %q of %s: certificates that it has issued cannot be revoked (crl_missing: allow)",
				nameText(c.Subject), b.CAOption)
		} else {
			b.warnf(option, "there is no CRL from %q of %s: certificates that it has issued are refused until there is one",
				nameText(c.Subject), b.CAOption)
		}
	}
}

// issuedCA reports whether a CA has issued another one of the configured CAs.
func (b *Builder) issuedCA(issuer *certs.Certificate) bool {
	return slices.ContainsFunc(b.CAs, func(c *certs.Certificate) bool {
		return c.IsCA() && !c.Equal(issuer) && c.Issuer.Equal(issuer.Subject)
	})
}
