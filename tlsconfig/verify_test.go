package tlsconfig

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"weak"

	"pgwicket/internal/certs"
	"pgwicket/internal/crl"
	"pgwicket/internal/tlstest"
)

// Extensions of lists, and the numbers that they begin with.
var (
	idCE       = asn1.ObjectIdentifier{2, 5, 29}
	deltaCRL   = tlstest.Extension(append(idCE, 27), true, 1)
	unknownExt = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 99999, 1}
)

// gatePKI is the usual one: a root, a CA below it that issues client certificates, and a client.
type gatePKI struct {
	root, inter *tlstest.CA
	alice       *tlstest.Pair
}

func newPKI(edit ...func(*x509.Certificate)) gatePKI {
	root := tlstest.NewCA("root")
	inter := root.Intermediate("intermediate", edit...)
	return gatePKI{root, inter, inter.Client("alice")}
}

// certs is the usual CA file: the root, then the intermediate.
func (p gatePKI) certs() []*x509.Certificate { return []*x509.Certificate{p.root.Cert, p.inter.Cert} }

// poolOf makes what loadPool would make of a CA file.
func poolOf(ca []*x509.Certificate, partialChain bool) *certs.Pool {
	var list []*certs.Certificate
	for _, x := range ca {
		c, err := certs.Parse(x.Raw)
		if err != nil {
			panic(err)
		}
		list = append(list, c)
	}
	return certs.NewPool("ca_file", list, partialChain)
}

func newVerifier(mode ClientCert, ca []*x509.Certificate, partialChain bool, crls *crl.Set) *verifier {
	v := &verifier{
		mode: mode, minBits: certs.DefaultSecurityBits, pool: poolOf(ca, partialChain), partialChain: partialChain, crls: crls, chains: newChains(),
	}
	v.steps = v.stepsOf()
	return v
}

// check is verify without the chain.
func (v *verifier) check(peer []*x509.Certificate, at time.Time) error {
	_, err := v.verify(certs.DER(peer), at)
	return err
}

// loadList loads a CRL file with that content, and returns the problems as lines of text.
func loadList(t testing.TB, ca []*x509.Certificate, content []byte) (*crl.Set, []string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "crl")
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
	set, problems := loadClientCRLs(Options{CRLFile: file}, poolOf(ca, false), nil, time.Now())
	return set, texts(problems)
}

// texts returns one line for each problem.
func texts(problems []Problem) []string {
	var lines []string
	for _, p := range problems {
		kind := "error"
		if p.Warning {
			kind = "warning"
		}
		lines = append(lines, kind+" "+p.String())
	}
	return lines
}

// What is remembered of a client holds its certificates and nothing else of its message.
func TestRememberedWithoutTheMessage(t *testing.T) {
	t.Parallel()
	p := newPKI()
	for name, der := range map[string][]byte{"client": p.alice.Leaf().Raw, "stranger": tlstest.NewCA("other").Client("alice").Leaf().Raw} {
		v := newVerifier(ClientCertRequire, p.certs(), false, nil)
		message := func() weak.Pointer[[14 << 10]byte] {
			message := new([14 << 10]byte)
			leaf, err := x509.ParseCertificate(message[:copy(message[:], der)])
			if err != nil {
				t.Fatal(err)
			}
			for range 2 { // a client is remembered when it comes again
				_ = v.check([]*x509.Certificate{leaf}, time.Now())
				v.epoch = v.chains.nextEpoch()
			}
			return weak.Make(message)
		}()
		if n := len(v.chains.known.byHash) + len(v.chains.strangers.byHash); n != 1 {
			t.Errorf("%s: %d paths are remembered", name, n)
		}
		runtime.GC()
		if message.Value() != nil {
			t.Errorf("%s: the message is kept", name)
		}
		runtime.KeepAlive(v)
	}
}

// reasonOf returns why a verifier refuses a client, "" if it does not. With and without remembered chains it must be the same.
func reasonOf(t testing.TB, v *verifier, at time.Time, peer ...*x509.Certificate) Reason {
	t.Helper()
	err := v.check(peer, at)
	cold := withoutChains(v)
	for what, again := range map[string]error{"once more": v.check(peer, at), "by facts": withFacts(v).check(peer, at), "without remembered chains": cold.check(peer, at)} {
		if fmt.Sprint(again) != fmt.Sprint(err) {
			t.Errorf("%s: %v, at first %v", what, again, err)
		}
	}
	if err == nil {
		return ""
	}
	var refused *VerifyError
	if !errors.As(err, &refused) {
		t.Fatalf("not a VerifyError: %v", err)
	}
	dated := refused.Reason == ReasonExpired || refused.Reason == ReasonNotYetValid || refused.Reason == ReasonRevoked
	if refused.Detail == "" || refused.Date.IsZero() == dated {
		t.Errorf("%s: dated %v, detail %q", refused.Reason, refused.Date, refused.Detail)
	}
	return refused.Reason
}

// The semantics of PostgreSQL, which sets X509_V_FLAG_CRL_CHECK and X509_V_FLAG_CRL_CHECK_ALL. A list with a fault does no more
// than revoke.
//
// envoyproxy/envoy#18268, haproxy/haproxy#1201: a list for one level of the chain only.
// rsyslog/rsyslog#6662, haproxy/haproxy#85: an expired list neither passes without notice nor makes a fresh one useless.
func TestCRLMatrix(t *testing.T) {
	t.Parallel()
	now := time.Now()
	expired := func(l *tlstest.CRL) { l.ThisUpdate, l.NextUpdate = now.AddDate(0, 0, -9), now.AddDate(0, 0, -2) }
	future := func(l *tlstest.CRL) { l.ThisUpdate = now.AddDate(0, 0, 2) }
	old := func(l *tlstest.CRL) { l.ThisUpdate = now.AddDate(0, 0, -3) }
	version1 := func(l *tlstest.CRL) { l.Version = 1 }
	scope := func(tag int) func(*tlstest.CRL) {
		return func(l *tlstest.CRL) {
			l.Extensions = append(l.Extensions, tlstest.IssuingDistributionPoint(tlstest.Flag(tag)))
		}
	}
	ext := func(x pkix.Extension) func(*tlstest.CRL) {
		return func(l *tlstest.CRL) { l.Extensions = append(l.Extensions, x) }
	}
	reason := func(n int) func(*tlstest.CRL) {
		return func(l *tlstest.CRL) {
			for i := range l.Revoked {
				l.Revoked[i].Reason = n
			}
		}
	}
	tomorrow := func(l *tlstest.CRL) {
		for i := range l.Revoked {
			l.Revoked[i].Date = now.AddDate(0, 0, 1)
		}
	}
	empty := func(l *tlstest.CRL) { l.Revoked = nil }
	forever := func(l *tlstest.CRL) { l.NextUpdate = time.Time{} }
	otherKey := func(l *tlstest.CRL) { l.Key = tlstest.NewCA("root").Key }

	pki := newPKI()
	mallory := pki.inter.Client("mallory").Leaf()
	revokedCA := func(l *tlstest.CRL) { l.Revoke(pki.inter.Cert) }
	// Both write a list that revokes mallory unless edited.
	root := func(edit ...func(*tlstest.CRL)) []byte {
		return pki.root.CRL(func(l *tlstest.CRL) { apply(l, edit) })
	}
	inter := func(edit ...func(*tlstest.CRL)) []byte {
		return pki.inter.CRL(func(l *tlstest.CRL) { l.Revoke(mallory); apply(l, edit) })
	}

	for _, c := range []struct {
		name         string
		lists        [][]byte
		good, listed Reason
	}{
		{"root and issuing CA", list(root(), inter()), "", ReasonRevoked},
		{"the same in version 1", list(root(version1), inter(version1)), "", ReasonRevoked},
		{"issuing CA only", list(inter()), ReasonCRLMissing, ReasonRevoked},
		{"root only", list(root()), ReasonCRLMissing, ReasonCRLMissing},
		{"issuing CA past nextUpdate", list(root(), inter(expired)), ReasonCRLStale, ReasonRevoked}, // OpenSSL says that the list has expired
		{"issuing CA twice past nextUpdate, one revokes", list(root(), inter(expired), inter(expired, empty, version1)), ReasonCRLStale, ReasonRevoked},
		{"expired that revokes and one not yet valid", list(root(), inter(expired), inter(future, empty)), ReasonCRLStale, ReasonRevoked},
		{"issuing CA not yet valid", list(root(), inter(future)), ReasonCRLStale, ReasonRevoked},
		{"root past nextUpdate", list(root(expired), inter()), ReasonCRLStale, ReasonRevoked},
		{"expired and fresh", list(root(), inter(expired, empty), inter()), "", ReasonRevoked},
		{"expired that revokes and fresh that does not", list(root(), inter(expired), inter(empty)), "", ""},
		{"two valid, the first revokes", list(root(), inter(old), inter(empty)), "", ReasonRevoked},
		{"two valid, the second revokes", list(root(), inter(empty), inter(old)), "", ReasonRevoked},
		{"root's signed by another key", list(root(otherKey), inter()), ReasonCRLMissing, ReasonRevoked},
		{"delta alone", list(root(), inter(ext(deltaCRL))), ReasonCRLMissing, ReasonRevoked},
		{"base and delta", list(root(), inter(old, empty), inter(ext(deltaCRL))), "", ReasonRevoked},
		{"newer base and delta", list(root(), inter(empty), inter(old, ext(deltaCRL))), "", ""},
		{"only user certificates", list(root(), inter(scope(1))), "", ReasonRevoked},
		{"only user certificates, of the root", list(root(scope(1)), inter()), ReasonCRLMissing, ReasonRevoked},
		{"only CA certificates", list(root(), inter(scope(2))), ReasonCRLMissing, ReasonRevoked},
		{"only CA certificates, of the root", list(root(scope(2)), inter()), "", ReasonRevoked},
		{"indirect", list(root(), inter(scope(4))), ReasonCRLMissing, ReasonCRLMissing},
		{"only some reasons", list(root(), inter(ext(tlstest.IssuingDistributionPoint(asn1.RawValue{Tag: 3, Bytes: []byte{6, 0x40}})))), ReasonCRLMissing, ReasonRevoked},
		{"unknown critical extension", list(root(), inter(ext(tlstest.Extension(unknownExt, true, 1)))), ReasonCRLMissing, ReasonRevoked},
		{"removeFromCRL", list(root(), inter(reason(8))), "", ""},
		{"certificateHold", list(root(), inter(reason(6))), "", ReasonRevoked},
		{"revoked from tomorrow on", list(root(), inter(tomorrow)), "", ReasonRevoked},
		{"revoked intermediate", list(root(revokedCA), inter()), ReasonRevoked, ReasonRevoked},
		{"no nextUpdate", list(root(forever), inter(forever)), "", ReasonRevoked},
		{"several blocks, one twice", list(root(), inter(), root()), "", ReasonRevoked},
		{"nothing revoked", list(root(), inter(empty)), "", ""},
	} {
		set, problems := loadList(t, pki.certs(), bytes.Join(c.lists, nil))
		if hasError(problems) {
			t.Errorf("%s: %v", c.name, problems)
		}
		v := newVerifier(ClientCertRequire, pki.certs(), false, set)
		if got := reasonOf(t, v, now, pki.alice.Chain...); got != c.good {
			t.Errorf("%s: a good certificate: %q, want %q", c.name, got, c.good)
		}
		if got := reasonOf(t, v, now, mallory, pki.inter.Cert); got != c.listed {
			t.Errorf("%s: a revoked certificate: %q, want %q", c.name, got, c.listed)
		}
	}
}

func list(lists ...[]byte) [][]byte { return lists }

func apply(l *tlstest.CRL, edits []func(*tlstest.CRL)) {
	for _, e := range edits {
		e(l)
	}
}

func hasError(problems []string) bool {
	return slices.ContainsFunc(problems, func(p string) bool { return strings.HasPrefix(p, "error") })
}

// envoyproxy/envoy#29197, pomerium/pomerium#4471: crypto/tls takes the intermediate of a CA file as an anchor and never checks
// its revocation. OpenSSL needs the root's list and refuses it.
func TestRevokedIntermediate(t *testing.T) {
	t.Parallel()
	pki := newPKI()
	lists := slices.Concat(pki.inter.CRL(nil), pki.root.CRL(func(l *tlstest.CRL) { l.Revoke(pki.inter.Cert) }))
	for _, c := range []struct {
		name    string
		ca      []*x509.Certificate
		partial bool
		crl     []byte
		want    Reason
	}{
		{"usual file", pki.certs(), false, lists, ReasonRevoked},
		{"root alone", pki.certs()[:1], false, lists, ReasonRevoked},
		{"both as anchors", pki.certs(), true, lists, ReasonRevoked},
		{"intermediate as anchor, its CRL", pki.certs()[1:], true, pki.inter.CRL(nil), ""},
		{"intermediate as anchor, no CRL", pki.certs()[1:], true, pki.root.CRL(nil), ReasonCRLMissing},
		// The root is not in the CA file, so its list does not count.
		{"intermediate as anchor, the lists of both", pki.certs()[1:], true, lists, ""},
		{"intermediate alone, no partial chain", pki.certs()[1:], false, lists, ReasonUnknownCA},
	} {
		set, problems := loadList(t, c.ca, c.crl)
		if hasError(problems) {
			t.Errorf("%s: %v", c.name, problems)
		}
		v := newVerifier(ClientCertRequire, c.ca, c.partial, set)
		for _, peer := range [][]*x509.Certificate{pki.alice.Chain, append(slices.Clone(pki.alice.Chain), pki.root.Cert)} {
			if got := reasonOf(t, v, time.Now(), peer...); got != c.want {
				t.Errorf("%s, %d certificates sent: %q, want %q", c.name, len(peer), got, c.want)
			}
		}
	}
}

// A trust anchor that is not self-signed can be revoked by its issuer, but not by another CA of the same name.
func TestPartialChainIssuer(t *testing.T) {
	t.Parallel()
	one, two := tlstest.NewCA("root"), tlstest.NewCA("root")
	inter := one.Intermediate("intermediate")
	revokes := func(l *tlstest.CRL) { l.Revoke(inter.Cert) }
	ca := []*x509.Certificate{one.Cert, two.Cert, inter.Cert}
	for _, c := range []struct {
		name string
		crl  []byte
		want Reason
	}{
		{"its issuer revokes it", slices.Concat(one.CRL(revokes), two.CRL(nil)), ReasonRevoked},
		{"another CA of that name revokes that serial", slices.Concat(one.CRL(nil), two.CRL(revokes)), ""},
	} {
		set, problems := loadList(t, ca, append(c.crl, inter.CRL(nil)...))
		if problems != nil {
			t.Fatal(problems)
		}
		if got := reasonOf(t, newVerifier(ClientCertRequire, ca, true, set), time.Now(), inter.Client("alice").Leaf()); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

// OpenSSL checks the root with the root's own list too.
func TestRootIsChecked(t *testing.T) {
	t.Parallel()
	root := tlstest.NewCA("root")
	ca := []*x509.Certificate{root.Cert}
	for _, c := range []struct {
		name string
		crl  func(*tlstest.CRL)
		want Reason
	}{
		{"good", nil, ""},
		{"revoked by itself", func(l *tlstest.CRL) { l.Revoke(root.Cert) }, ReasonRevoked},
		{"a list for leaves only", func(l *tlstest.CRL) {
			l.Extensions = []pkix.Extension{tlstest.IssuingDistributionPoint(tlstest.Flag(1))}
		}, ReasonCRLMissing},
	} {
		lists, peer := root.CRL(c.crl), root.Client("alice").Chain
		set, _ := loadList(t, ca, lists)
		if got := reasonOf(t, newVerifier(ClientCertRequire, ca, false, set), time.Now(), peer...); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
		if _, err := exec.LookPath("openssl"); err == nil {
			if ok, why := opensslVerify(t, root.CertPEM(), lists, peer); ok != (c.want == "") {
				t.Errorf("%s: OpenSSL says %t\n%s", c.name, ok, why)
			}
		}
	}
}

// RFC 5280 section 3.2: the certificate for a CA's new key, signed with its old one, has the same name twice and is no root.
func TestSelfIssuedIsNotSelfSigned(t *testing.T) {
	t.Parallel()
	before, after := tlstest.NewCA("root"), tlstest.NewCA("root")
	bridge := crossSign(t, after.Cert, before)
	if len(bridge.AuthorityKeyId) == 0 {
		t.Fatal("OpenSSL goes by the key identifiers")
	}
	alice := after.Client("alice").Leaf()
	for _, c := range []struct {
		name string
		ca   []*x509.Certificate
		want Reason
	}{
		{"the bridge alone", []*x509.Certificate{bridge}, ReasonUnknownCA},
		{"the bridge and the old root", []*x509.Certificate{bridge, before.Cert}, ""},
		{"the new root", []*x509.Certificate{after.Cert}, ""},
	} {
		if got := reasonOf(t, newVerifier(ClientCertRequire, c.ca, false, nil), time.Now(), alice); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

func TestVerifyModes(t *testing.T) {
	t.Parallel()
	pki := newPKI()
	stranger := tlstest.NewCA("stranger").Client("alice").Chain
	for _, c := range []struct {
		mode                ClientCert
		none, good, unknown Reason
	}{
		{ClientCertRequire, ReasonMissing, "", ReasonUnknownCA},
		{ClientCertOptional, "", "", ReasonUnknownCA}, // pgbouncer/pgbouncer#275: a bad one is not none
		{ClientCertNone, "", "", ""},
		{"", ReasonMissing, "", ReasonUnknownCA}, // fails closed
	} {
		v := newVerifier(c.mode, pki.certs(), false, nil)
		none, good, unknown := reasonOf(t, v, time.Now()), reasonOf(t, v, time.Now(), pki.alice.Leaf()), reasonOf(t, v, time.Now(), stranger...)
		if none != c.none || good != c.good || unknown != c.unknown {
			t.Errorf("%q: without %q, good %q, unknown %q", c.mode, none, good, unknown)
		}
	}
}

// With an empty CA file every client is refused: with a nil pool x509 would use the system's roots.
func TestVerifyWithoutAnchors(t *testing.T) {
	t.Parallel()
	v := newVerifier(ClientCertRequire, nil, false, nil)
	if got := reasonOf(t, v, time.Now(), newPKI().alice.Chain...); got != ReasonUnknownCA {
		t.Errorf("got %q", got)
	}
}

func TestVerifyClient(t *testing.T) {
	t.Parallel()
	now := time.Now()
	pki := newPKI()
	usage := func(u x509.KeyUsage) func(*x509.Certificate) { return func(c *x509.Certificate) { c.KeyUsage = u } }
	extended := func(u ...x509.ExtKeyUsage) func(*x509.Certificate) {
		return func(c *x509.Certificate) { c.ExtKeyUsage = u }
	}
	client := func(edit ...func(*x509.Certificate)) []*x509.Certificate {
		return pki.inter.Client("alice", edit...).Chain
	}
	below := func(edit ...func(*x509.Certificate)) []*x509.Certificate { // below a CA of that kind
		return pki.root.Intermediate("other", edit...).Client("alice").Chain
	}
	names := func(n ...string) func(*x509.Certificate) {
		return func(c *x509.Certificate) {
			var rdn pkix.RDNSequence
			for _, v := range n {
				rdn = append(rdn, pkix.RelativeDistinguishedNameSET{{Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: v}})
			}
			c.RawSubject, _ = asn1.Marshal(rdn)
		}
	}
	critical := func(x pkix.Extension) func(*x509.Certificate) {
		return func(c *x509.Certificate) { c.ExtraExtensions = append(c.ExtraExtensions, x) }
	}
	eve := pki.inter.Client("eve")
	noUsage := critical(tlstest.Extension(append(idCE, 15), true, asn1.BitString{}))

	for _, c := range []struct {
		name string
		peer []*x509.Certificate
		want Reason
	}{
		{"good", client(), ""},
		{"the leaf alone", client()[:1], ""},
		{"with the root", append(client(), pki.root.Cert), ""},
		{"by the root", pki.root.Client("alice").Chain, ""},
		{"RSA", pki.inter.WithKey(tlstest.RSA).Client("alice").Chain, ""},
		{"Ed25519", pki.inter.WithKey(tlstest.Ed25519).Client("alice").Chain, ""},
		{"below an intermediate that only the client has", below(), ""},
		{"that intermediate left out", below()[:1], ReasonUnknownCA},

		{"expired", client(func(c *x509.Certificate) { c.NotAfter = now.Add(-time.Minute) }), ReasonExpired},
		{"not yet valid", client(func(c *x509.Certificate) { c.NotBefore = now.Add(time.Minute) }), ReasonNotYetValid},
		{"below an expired CA", below(func(c *x509.Certificate) { c.NotAfter = now.Add(-time.Minute) }), ReasonExpired},
		{"below a future CA", below(func(c *x509.Certificate) { c.NotBefore = now.Add(time.Minute) }), ReasonNotYetValid},

		// OpenSSL's check_purpose_ssl_client: clientAuth by name, digitalSignature or keyAgreement, each only if the
		// extension is there.
		{"no extendedKeyUsage", client(extended()), ""},
		{"clientAuth and serverAuth", client(extended(x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth)), ""},
		{"clientAuth and any", client(extended(x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageAny)), ""},
		{"any only", client(extended(x509.ExtKeyUsageAny)), ReasonWrongPurpose},
		{"serverAuth only", client(extended(x509.ExtKeyUsageServerAuth)), ReasonWrongPurpose},
		{"a server's certificate", pki.inter.Server("alice").Chain, ReasonWrongPurpose},
		{"below a CA for any only", below(extended(x509.ExtKeyUsageAny)), ReasonWrongPurpose},
		{"below a CA for serverAuth", below(extended(x509.ExtKeyUsageServerAuth)), ReasonWrongPurpose},
		{"below a CA for clientAuth", below(extended(x509.ExtKeyUsageClientAuth)), ""},
		{"no keyUsage", client(usage(0)), ""},
		{"keyAgreement", client(usage(x509.KeyUsageKeyAgreement)), ""},
		{"keyEncipherment only", client(usage(x509.KeyUsageKeyEncipherment)), ReasonWrongPurpose},
		{"keyUsage without a bit", client(usage(0), noUsage), ReasonInvalid},

		{"unknown critical extension", client(critical(tlstest.Extension(unknownExt, true, 1))), ReasonInvalid},
		{"below one that is no CA", []*x509.Certificate{(&tlstest.CA{Cert: eve.Leaf(), Key: eve.Key}).Client("alice").Leaf(), eve.Leaf()}, ReasonInvalid},
		{"a CA's own certificate", below()[1:], ReasonWrongPurpose},
		{"a CA that may sign messages", below(usage(x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature))[1:], ""},
		{"by another CA of the same name", tlstest.NewCA("root").Intermediate("intermediate").Client("alice").Chain, ReasonUnknownCA},
		{"self-signed", []*x509.Certificate{tlstest.NewCA("alice").Cert}, ReasonUnknownCA},

		// haproxy/haproxy commit 7c43f85: misleading names are for the identity to refuse, and no fault of the chain.
		{"NUL in the common name", client(names("alice\x00.evil")), ""},
		{"two common names", client(names("alice", "bob")), ""},
		{"no subject", client(names()), ""},
		{"empty DNS name", client(func(c *x509.Certificate) { c.DNSNames = []string{""} }), ""},
	} {
		v := newVerifier(ClientCertRequire, pki.certs(), false, nil)
		if got := reasonOf(t, v, now, c.peer...); got != c.want {
			t.Errorf("%s: %q, want %q: %v", c.name, got, c.want, v.check(c.peer, now))
		}
	}
}

// The detail names serial, issuer and list. The date and whose it is are for what the client is told.
func TestVerifyErrors(t *testing.T) {
	t.Parallel()
	at := time.Date(2027, 3, 4, 5, 6, 7, 0, time.UTC)
	dates := func(c *x509.Certificate) { c.NotBefore, c.NotAfter = at.AddDate(-1, 0, 0), at.AddDate(1, 0, 0) }
	root := tlstest.NewCA("root", dates)
	inter := root.Intermediate("a \"CA\"", dates, func(c *x509.Certificate) { c.NotAfter = at.AddDate(0, 3, 0) })
	alice := inter.Client("alice", dates, func(c *x509.Certificate) {
		c.NotAfter, c.SerialNumber = at.AddDate(0, 2, 0), big.NewInt(0xbeef)
	})
	current := func(l *tlstest.CRL) { l.ThisUpdate, l.NextUpdate = at.AddDate(0, 0, -2), at.AddDate(0, 0, 2) }
	revoking := inter.CRL(func(l *tlstest.CRL) {
		current(l)
		l.Revoked = []tlstest.Revoked{{Serial: alice.Leaf().SerialNumber, Date: at.AddDate(0, 0, -3), Reason: 1}}
	})
	lapsed := func(days int) []byte {
		return inter.CRL(func(l *tlstest.CRL) { l.ThisUpdate, l.NextUpdate = at.AddDate(0, 0, -days-9), at.AddDate(0, 0, -days) })
	}
	revokingCA := root.CRL(func(l *tlstest.CRL) { current(l); l.Revoke(inter.Cert) })
	good := root.CRL(current)

	for _, c := range []struct {
		crl    []byte
		after  time.Duration
		reason Reason
		isCA   bool
		date   string // empty: none
		detail string
	}{
		{
			slices.Concat(good, revoking), 0, ReasonRevoked, false, "2027-03-01",
			`client certificate BEEF ("CN=alice", issued by "CN=a \\\"CA\\\"") was revoked on 2027-03-01 (keyCompromise) by "FILE" (block 2, from "CN=a \\\"CA\\\"")`,
		},
		{revokingCA, 0, ReasonRevoked, true, "2027-03-02", `CA certificate`},
		{
			slices.Concat(good, lapsed(0)), 72 * time.Hour, ReasonCRLStale, false, "",
			`cannot be checked: "FILE" (block 2, from "CN=a \\\"CA\\\"") is out of date since 2027-03-04T05:06:07Z`,
		},
		{ // out of date, but what it says has not become untrue
			slices.Concat(good, revoking), 72 * time.Hour, ReasonRevoked, false, "2027-03-01",
			`was revoked on 2027-03-01 (keyCompromise) by "FILE" (block 2, from "CN=a \\\"CA\\\"")`,
		},
		{ // the newest list that is out of date, wherever it stands
			slices.Concat(good, lapsed(8), lapsed(2), lapsed(4)), 0, ReasonCRLStale, false, "",
			`cannot be checked: "FILE" (block 3, from "CN=a \\\"CA\\\"") is out of date since 2027-03-02T05:06:07Z`,
		},
		{good, 0, ReasonCRLMissing, false, "", `is not covered by any CRL: there is none from "CN=a \\\"CA\\\""`},
		{good, 62 * 24 * time.Hour, ReasonExpired, false, "2027-05-04", `expired on 2027-05-04T05:06:07Z`},
		{good, -500 * 24 * time.Hour, ReasonNotYetValid, true, "2026-03-04", `is not valid before 2026-03-04T05:06:07Z`},
	} {
		file := filepath.Join(t.TempDir(), "crl")
		if err := os.WriteFile(file, c.crl, 0o600); err != nil {
			t.Fatal(err)
		}
		ca := []*x509.Certificate{root.Cert, inter.Cert}
		set, _ := loadClientCRLs(Options{CRLFile: file}, poolOf(ca, false), nil, at)
		err := newVerifier(ClientCertRequire, ca, false, set).check(alice.Chain, at.Add(c.after))
		var refused *VerifyError
		if !errors.As(err, &refused) {
			t.Errorf("%s: got %v", c.detail, err)
			continue
		}
		date := ""
		if !refused.Date.IsZero() {
			date = dateText(refused.Date)
		}
		if refused.Reason != c.reason || refused.CA != c.isCA || date != c.date {
			t.Errorf("%s: got %s, CA %t, date %q", c.detail, refused.Reason, refused.CA, date)
		}
		if want := strings.ReplaceAll(c.detail, "FILE", file); !strings.Contains(err.Error(), want) {
			t.Errorf("got  %s\nwant %s", err, want)
		}
	}
}

// A client cannot write a quarter of a megabyte into the log, nor a line of its choice.
func TestVerifyErrorIsBounded(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 60_000)
	stranger := tlstest.NewCA(long).Client("a\nlevel=INFO msg=\"session\"", func(c *x509.Certificate) {
		c.SerialNumber = new(big.Int).Lsh(big.NewInt(1), 60_000)
		c.Subject.OrganizationalUnit = []string{long}
	})
	err := newVerifier(ClientCertRequire, newPKI().certs(), false, nil).check(stranger.Chain, time.Now())
	if text := err.Error(); len(text) > 2000 || strings.Contains(text, "\n") {
		t.Errorf("%d bytes: %.2000s", len(text), text)
	}
}

// DataBiosphere/azul#4871: the same session is judged again as time passes.
func TestVerifyAsTimePasses(t *testing.T) {
	t.Parallel()
	pki := newPKI()
	start := time.Now()
	lists := slices.Concat(pki.root.CRL(func(l *tlstest.CRL) { l.NextUpdate = start.AddDate(2, 0, 0) }), pki.inter.CRL(nil))
	set, problems := loadList(t, pki.certs(), lists)
	if problems != nil {
		t.Fatal(problems)
	}
	v := newVerifier(ClientCertRequire, pki.certs(), false, set)
	for _, c := range []struct {
		days int
		want Reason
	}{{0, ""}, {29, ""}, {31, ReasonCRLStale}, {366, ReasonExpired}, {-1, ReasonNotYetValid}, {1, ""}} {
		if got := reasonOf(t, v, start.AddDate(0, 0, c.days), pki.alice.Chain...); got != c.want {
			t.Errorf("day %d: %q, want %q", c.days, got, c.want)
		}
	}
}

// withoutChains returns the same verifier without remembered chains.
func withoutChains(v *verifier) *verifier {
	w := *v
	w.chains = newChains()
	return &w
}

// withFacts returns the same verifier with the facts that it remembers, and without certificates.
func withFacts(v *verifier) *verifier {
	w := *v
	w.chains = &chains{facts: v.chains.facts}
	return &w
}

// The revocation of every certificate of a remembered chain is checked each time.
func TestRevocationInRememberedChain(t *testing.T) {
	t.Parallel()
	pki := newPKI()
	lists := func(revoked ...*x509.Certificate) *crl.Set {
		revoke := func(l *tlstest.CRL) { l.Revoke(revoked...) }
		set, problems := loadList(t, pki.certs(), slices.Concat(pki.root.CRL(revoke), pki.inter.CRL(revoke)))
		if hasError(problems) {
			t.Fatal(problems)
		}
		return set
	}
	bob := pki.inter.Client("bob")
	for _, c := range []struct {
		name       string
		crls       *crl.Set
		alice, bob Reason
	}{
		{"none", lists(), "", ""},
		{"alice", lists(pki.alice.Leaf()), ReasonRevoked, ""},
		{"the intermediate", lists(pki.inter.Cert), ReasonRevoked, ReasonRevoked},
		{"no lists", new(crl.Set), ReasonCRLMissing, ReasonCRLMissing},
		{"none again", lists(), "", ""},
	} {
		v := newVerifier(ClientCertRequire, pki.certs(), false, lists())
		for _, peer := range [][]*x509.Certificate{pki.alice.Chain, bob.Chain} {
			for range 2 { // a client is remembered when it comes again
				if err := v.check(peer, time.Now()); err != nil {
					t.Fatal(err)
				}
				v.epoch = v.chains.nextEpoch()
			}
		}
		if len(v.chains.known.byHash) != 2 {
			t.Fatalf("%d clients are remembered", len(v.chains.known.byHash))
		}
		before := v
		v = newVerifier(ClientCertRequire, pki.certs(), false, c.crls)
		v.inherit(before)
		if got := reasonOf(t, v, time.Now(), pki.alice.Chain...); got != c.alice {
			t.Errorf("%s: alice %q, want %q", c.name, got, c.alice)
		}
		if got := reasonOf(t, v, time.Now(), bob.Chain...); got != c.bob {
			t.Errorf("%s: bob %q, want %q", c.name, got, c.bob)
		}
	}
}

// After a reload with the same CAs the signatures of live sessions need not be verified again. After one with other CAs, or
// other anchors, they do.
func TestChainsAreInherited(t *testing.T) {
	t.Parallel()
	pki := newPKI()
	before := newVerifier(ClientCertRequire, pki.certs(), false, nil)
	for range 2 { // a client is remembered when it comes again
		if err := before.check(pki.alice.Chain, time.Now()); err != nil {
			t.Fatal(err)
		}
		before.epoch = before.chains.nextEpoch()
	}
	for _, c := range []struct {
		name string
		v    *verifier
		want int
	}{
		{"the same CAs", newVerifier(ClientCertOptional, pki.certs(), false, nil), 1},
		{"one less", newVerifier(ClientCertRequire, pki.certs()[:1], false, nil), 0},
		{"one more", newVerifier(ClientCertRequire, append(pki.certs(), tlstest.NewCA("more").Cert), false, nil), 0},
		{"partial chains", newVerifier(ClientCertRequire, pki.certs(), true, nil), 0},
	} {
		c.v.inherit(before)
		if n := len(c.v.chains.known.byHash); n != c.want {
			t.Errorf("%s: %d clients are known, want %d", c.name, n, c.want)
		}
	}
	// The root has been removed, so its clients are refused, remembered or not.
	v := newVerifier(ClientCertRequire, []*x509.Certificate{tlstest.NewCA("other").Cert}, false, nil)
	v.inherit(before)
	if got := reasonOf(t, v, time.Now(), pki.alice.Chain...); got != ReasonUnknownCA {
		t.Errorf("after the CA has gone: %q", got)
	}
}

// Chains are remembered for exactly what a client sent. Those of strangers are not remembered, and there is a limit.
func TestRememberedChains(t *testing.T) {
	t.Parallel()
	pki := newPKI()
	v := newVerifier(ClientCertRequire, pki.certs(), false, nil)
	stranger := tlstest.NewCA("stranger").Client("alice")
	for range 2 {
		_ = v.check(pki.alice.Chain, time.Now())
		_ = v.check(pki.alice.Chain[:1], time.Now())
		_ = v.check(stranger.Chain, time.Now())
		_ = v.check(slices.Concat(pki.alice.Chain[:1], stranger.Chain), time.Now())
		v.epoch = v.chains.nextEpoch() // a client is remembered when it comes again, and its verdict is not known
	}
	if n := len(v.chains.known.byHash); n != 3 {
		t.Errorf("%d clients are remembered, want 3", n)
	}
	if n := len(v.chains.strangers.byHash); n != 1 {
		t.Errorf("%d strangers are remembered, want 1", n)
	}
	// What is remembered under the same hash for others does not count.
	p := v.chains.known.byHash[hashOf(certs.DER(pki.alice.Chain))]
	for _, peer := range [][]*x509.Certificate{pki.alice.Chain[:1], append(slices.Clone(pki.alice.Chain), pki.root.Cert), stranger.Chain} {
		sent := certs.DER(peer)
		v.chains.known.byHash[hashOf(sent)] = p
		if v.chains.get(hashOf(sent), sent) != nil {
			t.Errorf("%d certificates are taken for those of another client", len(peer))
		}
	}

	for _, sent := range []int{0, 50} {
		known := &path{leaf: p.leaf, sent: slices.Repeat([]*certs.Certificate{p.leaf}, sent), chain: p.chain}
		stranger := &path{leaf: known.leaf, sent: known.sent}
		v.chains = newChains()
		for i := range uint64(chainsLimit + 1000) {
			v.chains.remember(i, known)
			v.chains.remember(i, stranger)
		}
		for _, c := range []struct {
			paths       *paths
			limit, most int
		}{{&v.chains.known, chainsLimit, chainsSize}, {&v.chains.strangers, strangersLimit, strangersSize}} {
			if n, want := len(c.paths.byHash), min(c.limit, c.most/known.size()); n != want || c.paths.size != n*known.size() {
				t.Errorf("%d are remembered, with %d bytes; want %d of %d bytes", n, c.paths.size, want, known.size())
			}
		}
	}
}

// On the day when the certificates of many clients expire, their signatures are not verified at each attempt.
func TestExpiredChainIsRemembered(t *testing.T) {
	t.Parallel()
	pki := newPKI()
	expired := pki.alice.Leaf().NotAfter.Add(time.Hour)
	v := newVerifier(ClientCertRequire, pki.certs(), false, nil)
	for range 2 {
		if got := reasonOf(t, v, expired, pki.alice.Chain...); got != ReasonExpired {
			t.Errorf("%q, want %q", got, ReasonExpired)
		}
	}
	if n := len(v.chains.known.byHash); n != 1 {
		t.Errorf("%d clients are remembered, want 1", n)
	}
	// A chain that was refused before its signatures were verified is no known one.
	forged := *pki.alice.Leaf()
	forged.Raw = bytes.Clone(forged.Raw)
	forged.Raw[len(forged.Raw)-1] ^= 1
	for _, at := range []time.Time{time.Now(), expired} {
		if got := reasonOf(t, v, at, &forged, pki.inter.Cert); got != ReasonUnknownCA {
			t.Errorf("forged, at %v: %q, want %q", at, got, ReasonUnknownCA)
		}
	}
	if n := len(v.chains.known.byHash); n != 1 {
		t.Errorf("%d clients are remembered with the forged one, want 1", n)
	}
}

// Of several chains the one is judged that OpenSSL takes, with the first certificate of each name. That another would be
// good does not help, as in PostgreSQL.
func TestVerifyFirstChain(t *testing.T) {
	t.Parallel()
	one, two := tlstest.NewCA("one"), tlstest.NewCA("two")
	inter := one.Intermediate("intermediate")
	cross := crossSign(t, inter.Cert, two)
	alice := inter.Client("alice").Leaf()
	ca := []*x509.Certificate{one.Cert, two.Cert, inter.Cert, cross}
	revokes := func(c *x509.Certificate) func(*tlstest.CRL) { return func(l *tlstest.CRL) { l.Revoke(c) } }
	for _, c := range []struct {
		name string
		crl  []byte
		want Reason
	}{
		{"both good", slices.Concat(one.CRL(nil), two.CRL(nil), inter.CRL(nil)), ""},
		{"first revoked", slices.Concat(one.CRL(revokes(inter.Cert)), two.CRL(nil), inter.CRL(nil)), ReasonRevoked},
		{"second revoked", slices.Concat(one.CRL(nil), two.CRL(revokes(cross)), inter.CRL(nil)), ""},
		{"both revoked", slices.Concat(one.CRL(revokes(inter.Cert)), two.CRL(revokes(cross)), inter.CRL(nil)), ReasonRevoked},
		{"one revoked, one unknown", slices.Concat(two.CRL(revokes(cross)), inter.CRL(nil)), ReasonCRLMissing},
	} {
		set, problems := loadList(t, ca, c.crl)
		if hasError(problems) {
			t.Fatal(problems)
		}
		if got := reasonOf(t, newVerifier(ClientCertRequire, ca, false, set), time.Now(), alice); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

// crossSign has another CA certify the same name and key, under another serial.
func crossSign(t *testing.T, c *x509.Certificate, by *tlstest.CA) *x509.Certificate {
	t.Helper()
	template := *c
	template.SerialNumber = new(big.Int).Add(c.SerialNumber, big.NewInt(1))
	template.AuthorityKeyId = by.Cert.SubjectKeyId // without it OpenSSL would take a certificate of the same name for self-signed
	der, err := x509.CreateCertificate(rand.Reader, &template, by.Cert, c.PublicKey, by.Key)
	if err != nil {
		t.Fatal(err)
	}
	cross, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cross
}

// CVE-2024-24783: x509 panicked on certificates in a chain with an unknown kind of key.
func TestVerifyUnknownKeys(t *testing.T) {
	t.Parallel()
	pki := newPKI()
	now := time.Now()
	dsa := asn1.ObjectIdentifier{1, 2, 840, 10040, 4, 1}
	for _, algorithm := range []asn1.ObjectIdentifier{dsa, unknownExt} {
		odd := withKeyOf(t, pki.inter.Cert, pki.root, algorithm)
		leaf := withKeyOf(t, pki.alice.Leaf(), pki.inter, algorithm)
		v := newVerifier(ClientCertRequire, []*x509.Certificate{pki.root.Cert, odd}, true, nil)
		for _, peer := range [][]*x509.Certificate{
			{pki.alice.Leaf()},
			{pki.alice.Leaf(), odd},
			{odd},
			{leaf, odd, odd},
		} {
			if got := reasonOf(t, v, now, peer...); got == "" && peer[0] != odd {
				t.Errorf("%v: %d certificates are good", algorithm, len(peer))
			}
		}
		if got := reasonOf(t, v, now, pki.alice.Leaf(), odd, pki.inter.Cert); got != "" {
			t.Errorf("%v: one unknown key makes a good chain fail: %s", algorithm, got)
		}
	}
}

// withKeyOf replaces the public key of a certificate and has it signed again.
func withKeyOf(t *testing.T, c *x509.Certificate, by *tlstest.CA, algorithm asn1.ObjectIdentifier) *x509.Certificate {
	t.Helper()
	type key struct {
		Algorithm pkix.AlgorithmIdentifier
		Key       asn1.BitString
	}
	number, _ := asn1.Marshal(7)
	parameters, _ := asn1.Marshal([]int{23, 11, 5})
	spki, err := asn1.Marshal(key{
		Algorithm: pkix.AlgorithmIdentifier{Algorithm: algorithm, Parameters: asn1.RawValue{FullBytes: parameters}},
		Key:       asn1.BitString{Bytes: number, BitLength: 8 * len(number)},
	})
	if err != nil {
		t.Fatal(err)
	}
	var tbs asn1.RawValue
	if _, err := asn1.Unmarshal(c.RawTBSCertificate, &tbs); err != nil {
		t.Fatal(err)
	}
	raw, err := asn1.Marshal(asn1.RawValue{
		Tag: asn1.TagSequence, IsCompound: true, Bytes: bytes.Replace(tbs.Bytes, c.RawSubjectPublicKeyInfo, spki, 1),
	})
	if err != nil {
		t.Fatal(err)
	}
	digest := sha256.Sum256(raw)
	signature, err := by.Key.Sign(rand.Reader, digest[:], crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	der, err := asn1.Marshal(struct {
		TBS       asn1.RawValue
		Algorithm pkix.AlgorithmIdentifier
		Signature asn1.BitString
	}{
		asn1.RawValue{FullBytes: raw},
		pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}}, // ecdsa-with-SHA256
		asn1.BitString{Bytes: signature, BitLength: 8 * len(signature)},
	})
	if err != nil {
		t.Fatal(err)
	}
	odd, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return odd
}

// A client cannot cause much work, neither with many certificates nor with CAs that have all signed each other.
func TestVerifyBoundsWork(t *testing.T) {
	pki := newPKI()
	web := []*tlstest.CA{tlstest.NewCA("web"), tlstest.NewCA("web"), tlstest.NewCA("web"), tlstest.NewCA("web")}
	leaf := web[0].Client("alice").Leaf()
	tangled := []*x509.Certificate{leaf}
	for _, c := range web {
		for _, by := range web {
			if by != c {
				tangled = append(tangled, crossSign(t, c.Cert, by))
			}
		}
	}
	var many []*x509.Certificate
	for range 200 {
		many = append(many, tlstest.NewCA("web").Cert)
	}
	for _, c := range []struct {
		name string
		ca   []*x509.Certificate
		peer []*x509.Certificate
		want Reason
	}{
		{"200 sent", pki.certs(), append([]*x509.Certificate{leaf}, many...), ReasonUnknownCA},
		{"300 sent", pki.certs(), append([]*x509.Certificate{leaf}, slices.Concat(many, many)...), ReasonInvalid}, // 100 KiB and more
		{"CAs that have signed each other", pki.certs(), tangled, ReasonUnknownCA},
		{"200 in the CA file", append(pki.certs(), many...), pki.alice.Chain, ""},
		{"200 of the issuer's name in the CA file", append(pki.certs(), many...), []*x509.Certificate{leaf}, ReasonUnknownCA},
	} {
		v := newVerifier(ClientCertRequire, c.ca, false, nil)
		start := time.Now()
		got := reasonOf(t, v, start, c.peer...)
		if took := time.Since(start); got != c.want || took > 2*time.Second {
			t.Errorf("%s: %q after %v, want %q", c.name, got, took, c.want)
		}
	}
}

func TestVerifyConcurrently(t *testing.T) {
	t.Parallel()
	pki := newPKI()
	// The intermediate is not in the CA file, so its list is verified with the first client.
	lists := slices.Concat(pki.root.CRL(nil), pki.inter.CRL(nil))
	set, _ := loadList(t, pki.certs()[:1], lists)
	v := newVerifier(ClientCertRequire, pki.certs()[:1], false, set)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 20 {
				if err := v.check(pki.alice.Chain, time.Now()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

func BenchmarkVerify(b *testing.B) {
	pki := newPKI()
	lists, _ := pki.inter.BigCRL(10_000)
	set, problems := loadList(b, pki.certs(), append(lists, pki.root.CRL(nil)...))
	if hasError(problems) {
		b.Fatal(problems)
	}
	now := time.Now()
	for _, c := range []struct {
		name string
		crls *crl.Set
		peer []*x509.Certificate
	}{
		{"leaf", nil, pki.alice.Chain[:1]},
		{"leaf with CRLs", set, pki.alice.Chain[:1]},
		{"chain with CRLs", set, pki.alice.Chain},
		{"stranger", set, tlstest.NewCA("stranger").Client("alice").Chain},
	} {
		for _, known := range []bool{true, false} {
			v := newVerifier(ClientCertRequire, pki.certs(), false, c.crls)
			b.Run(fmt.Sprintf("%s/known=%v", c.name, known), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if !known {
						v = withoutChains(v)
					}
					if err := v.check(c.peer, now); (err == nil) != (c.name != "stranger") {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// A client that sends another certificate of a configured intermediate passes without the configured one, and so must its
// session when it is judged again. Nothing else of what was sent is kept.
func TestSentInPlaceOfConfigured(t *testing.T) {
	t.Parallel()
	root := tlstest.NewCA("root")
	inter := root.Intermediate("intermediate")
	again := func(edit func(*x509.Certificate)) *x509.Certificate {
		template := *inter.Cert
		template.SerialNumber = big.NewInt(4711)
		edit(&template)
		der, err := x509.CreateCertificate(rand.Reader, &template, root.Cert, inter.Key.Public(), root.Key)
		if err != nil {
			t.Fatal(err)
		}
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return cert
	}
	renewed := again(func(*x509.Certificate) {})
	large := again(func(c *x509.Certificate) {
		c.ExtraExtensions = append(c.ExtraExtensions, tlstest.Extension([]int{1, 2, 3, 4}, false, bytes.Repeat([]byte("x"), 4000)))
	})
	leaf, other := inter.Client("alice").Leaf(), tlstest.NewCA("other").Cert
	both := newVerifier(ClientCertRequire, []*x509.Certificate{root.Cert, inter.Cert}, false, nil)
	rootOnly := newVerifier(ClientCertRequire, []*x509.Certificate{root.Cert}, false, nil)
	for _, c := range []struct {
		name       string
		sent, kept []*x509.Certificate
	}{
		{"renewed", []*x509.Certificate{leaf, other, renewed, renewed}, []*x509.Certificate{leaf, renewed}},
		{"the configured one too", []*x509.Certificate{leaf, renewed, inter.Cert}, []*x509.Certificate{leaf, inter.Cert}},
		{"large", []*x509.Certificate{leaf, large}, []*x509.Certificate{leaf}},
	} {
		now := time.Now()
		kept, err := both.verify(certs.DER(c.sent), now)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if !slices.EqualFunc(kept, certs.DER(c.kept), bytes.Equal) {
			t.Errorf("%s: %d are kept of %d, want %d", c.name, len(kept), len(c.sent), len(c.kept))
		}
		if len(c.kept) > 1 {
			if _, err := rootOnly.verify(kept, now); err != nil {
				t.Errorf("%s: judged again without the configured one: %v", c.name, err)
			}
		}
	}
}

// A verdict that is remembered ends with the first date at which it could change, and with its verifier. What is not
// remembered is asked of the lists again.
func TestVerdictsEnd(t *testing.T) {
	t.Parallel()
	pki := newPKI()
	now := time.Now()
	lists := func(revoked ...*x509.Certificate) *crl.Set {
		set, problems := loadList(t, pki.certs(), slices.Concat(pki.root.CRL(nil), pki.inter.CRL(func(l *tlstest.CRL) { l.Revoke(revoked...) })))
		if hasError(problems) {
			t.Fatal(problems)
		}
		return set
	}
	v := newVerifier(ClientCertRequire, pki.certs(), false, lists())
	sent := certs.DER(pki.alice.Chain)
	settled := func(v *verifier, at time.Time) bool {
		m := v.chains.recall(sent)
		return m.fact.Admitted(v.epoch, at)
	}
	if _, err := v.verify(sent, now); err != nil {
		t.Fatal(err)
	}
	next := slices.MinFunc(v.crls.Infos(), func(a, b crl.Info) int { return a.NextUpdate.Compare(b.NextUpdate) }).NextUpdate
	for at, want := range map[time.Time]bool{
		now: true, next.Add(-time.Second): true, next: false, pki.alice.Leaf().NotAfter: false, pki.alice.Leaf().NotBefore.Add(-time.Second): false,
	} {
		if got := settled(v, at); got != want {
			t.Errorf("at %v the verdict is remembered: %t, want %t", at, got, want)
		}
	}
	again := newVerifier(ClientCertRequire, pki.certs(), false, lists(pki.alice.Leaf()))
	again.inherit(v)
	if settled(again, now) || !settled(v, now) {
		t.Error("a verdict is remembered for another verifier than its own")
	}
	var refused *VerifyError
	if _, err := again.verify(sent, now); !errors.As(err, &refused) || refused.Reason != ReasonRevoked {
		t.Errorf("after a reload that revokes it: %v", err)
	}
	junk := append(slices.Clone(sent), tlstest.NewCA("other").Cert.Raw)
	if keep, err := v.verify(junk, now); err != nil || len(keep) != len(sent) {
		t.Errorf("with junk behind it %d certificates are kept, %v", len(keep), err)
	}
	if m := v.chains.recall(junk); !m.fact.Known || m.fact.Admitted(v.epoch, now) {
		t.Error("a verdict is remembered for certificates that are not in the chain")
	}
}
