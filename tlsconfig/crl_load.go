package tlsconfig

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// crlLimit keeps offsets into a list within 32 bits. It is some twenty million revoked certificates.
const crlLimit = 1 << 30

// crlSource is where lists come from, with the names of the options for messages.
type crlSource struct {
	file, dir                     string // either may be empty; with neither there is no revocation checking
	policy                        crlPolicy
	fileOption, dirOption, caFile string
	peers                         string // whose certificates are asked about
}

// loadCRLs reads the lists that clients are judged by. previous is the set in force, or nil.
func loadCRLs(o Options, ca []*x509.Certificate, previous *crlSet, now time.Time) (*crlSet, []Problem) {
	return crlSource{
		file: o.CRLFile, dir: o.CRLDir, policy: o.crlPolicy(),
		fileOption: "crl_file", dirOption: "crl_dir", caFile: "ca_file", peers: "clients",
	}.load(ca, previous, now)
}

// load reads the lists. Without a file and a directory the set is nil. Lists with a fault that is not just a warning
// are left out of the set, which is then not fit for use.
func (src crlSource) load(ca []*x509.Certificate, previous *crlSet, now time.Time) (*crlSet, []Problem) {
	if src.file == "" && src.dir == "" {
		return nil, nil
	}
	l := crlLoader{
		source: src,
		set:    &crlSet{policy: src.policy, byIssuer: map[string][]*crl{}},
		ca:     ca,
		now:    now,
		seen:   map[[sha256.Size]byte]bool{},
	}
	if src.file != "" {
		l.key = src.fileOption
		l.file(src.file)
	}
	if src.dir != "" {
		l.key = src.dirOption
		l.dir(src.dir)
	}
	if !l.failed() {
		if src.file != "" {
			l.key = src.fileOption
		}
		if previous != nil {
			l.keep(previous)
		}
		l.lapses()
		l.gaps()
	}
	return l.set, l.problems
}

type crlLoader struct {
	report
	source crlSource
	set    *crlSet
	ca     []*x509.Certificate
	now    time.Time
	key    string // of the option being read
	seen   map[[sha256.Size]byte]bool
}

// dir reads every file of a directory. OpenSSL would look for names made by c_rehash only; here any name will do, and
// a link that c_rehash made beside the list itself does no harm.
func (l *crlLoader) dir(dir string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		l.errorf(l.key, "%v", cannotRead(dir, err))
		return
	}
	files := 0
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") { // Kubernetes keeps its ..data here
			continue
		}
		name := filepath.Join(dir, e.Name())
		st, err := os.Stat(name)
		switch {
		case err != nil:
			l.errorf(l.key, "%v", cannotRead(name, err))
		case st.Mode().IsRegular():
			files++
			l.file(name)
		}
	}
	if files == 0 && !l.failed() {
		l.warnf(l.key, "%q holds no CRL", dir)
	}
}

func (l *crlLoader) file(name string) {
	data, err := readFile(name, crlLimit, nil)
	if err != nil {
		l.errorf(l.key, "%v", err)
		return
	}
	lists, isPEM, err := splitCRLs(data)
	if err != nil {
		l.errorf(l.key, "%q %v", name, err)
		return
	}
	for i, der := range lists {
		sum := sha256.Sum256(der)
		if l.seen[sum] {
			continue
		}
		l.seen[sum] = true
		list, err := parseCRL(der)
		list.option, list.file = l.key, name
		if isPEM {
			list.block = i + 1
		}
		if err == nil {
			err = l.attach(list)
		}
		if err != nil {
			l.errorf(l.key, "%s %v", list.where(), err)
			continue
		}
		l.set.add(list)
	}
}

// attach finds the CA that signed a list. The name only says where to look: two CAs may have the same one, and a list
// belongs to the one whose key has signed it.
func (l *crlLoader) attach(list *crl) error {
	named := false
	for _, c := range l.ca {
		if !bytes.Equal(c.RawSubject, list.issuer) {
			continue
		}
		named = true
		if !list.signedBy(c) {
			continue
		}
		list.signer = c
		if mayUseKey(c, x509.KeyUsageCRLSign) {
			return nil // of two certificates for one key, one that allows CRLs is enough
		}
	}
	switch {
	case list.signer != nil:
		return errors.New("is signed by a CA whose certificate does not allow it to sign CRLs (keyUsage without cRLSign): " +
			"have the CA's certificate issued again")
	case named:
		return fmt.Errorf("is signed by somebody else than the CA of that name in %[1]s: "+
			"fetch it again, and see that %[1]s holds the CA's present certificate", l.source.caFile)
	default:
		// Not an error: they may bring the intermediate themselves.
		l.warnf(l.key, "%s is issued by no CA of %s: it only counts for %s that send that CA's certificate", list.where(), l.source.caFile, l.source.peers)
		return nil
	}
}

// keep holds on to the newest list of before where the newest one of now is older. That is a copy from a backup, a
// mirror that lags behind, or somebody who wants a revocation undone; none of them may undo it. Both lists are asked, so
// that what either revokes is revoked, for as long as this goes on: the one that is kept is handed on to the next load.
func (l *crlLoader) keep(previous *crlSet) {
	var kept []*crl
	for _, old := range previous.lists {
		var latest *crl
		for _, list := range l.set.lists {
			if list.succeeds(old) && (latest == nil || list.compare(latest) > 0) {
				latest = list
			}
		}
		// Without any list there is nothing to compare: it was taken away on purpose, and its CA has none.
		if latest == nil || latest.compare(old) >= 0 || previous.supersedes(old) {
			continue
		}
		l.warnf(latest.option, "%s goes back from %s to %s, so the newer list of before is kept and asked as well: "+
			"give the CA's newest list, or restart the gate to forget that one", latest.where(), old.age(latest), latest.age(old))
		again := *old // which sessions are using
		again.kept, again.signer = true, latest.signer
		kept = append(kept, &again)
	}
	for _, list := range kept {
		l.set.add(list)
	}
}

// lapses warns of lists that are not in date, unless another list stands in for them: old ones may lie about.
func (l *crlLoader) lapses() {
	for _, list := range l.set.lists {
		if list.kept || list.inDate(l.now, 0) || slices.ContainsFunc(l.set.lists, func(other *crl) bool {
			return other.inDate(l.now, 0) && other.succeeds(list)
		}) {
			continue
		}
		policy := l.set.policy
		switch {
		case l.now.Before(list.thisUpdate), !policy.allowStale && !list.inDate(l.now, policy.grace):
			l.warnf(list.option, "%s: certificates of this CA are refused until a newer CRL is there", list.stale(l.now))
		case policy.allowStale:
			l.warnf(list.option, "%s and counts all the same (crl_stale: allow): what was revoked since is let in until a newer CRL is there", list.stale(l.now))
		default:
			l.warnf(list.option, "%s and counts until %s (crl_grace): certificates of this CA are refused from then on until a newer CRL is there",
				list.stale(l.now), timeText(list.nextUpdate.Add(policy.grace)))
		}
	}
}

// gaps warns of every CA that has no list, which is easily overlooked for a root.
func (l *crlLoader) gaps() {
	policy := l.set.policy
	for _, c := range l.ca {
		// A root that has certified another CA of the file is hardly one that clients are certified by; and where a
		// missing list refuses, whoever is wrong in that will know.
		if !c.IsCA || policy.leafOnly && !policy.allowMissing && l.certifiesCA(c) {
			continue
		}
		has := false
		for _, list := range l.set.byIssuer[string(c.RawSubject)] {
			has = has || list.signedBy(c)
		}
		switch {
		case has:
		case policy.allowMissing:
			l.warnf(l.key, "there is no CRL from %q of %s: what it has issued cannot be revoked (crl_missing: allow)", nameText(c.RawSubject), l.source.caFile)
		default:
			l.warnf(l.key, "there is no CRL from %q of %s: certificates that it has issued are refused until there is one", nameText(c.RawSubject), l.source.caFile)
		}
	}
}

func (l *crlLoader) certifiesCA(issuer *x509.Certificate) bool {
	return slices.ContainsFunc(l.ca, func(c *x509.Certificate) bool {
		return c.IsCA && !c.Equal(issuer) && bytes.Equal(c.RawIssuer, issuer.RawSubject)
	})
}
