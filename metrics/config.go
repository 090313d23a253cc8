package metrics

import (
	"math"
	"math/big"
	"strings"
	"time"
)

// Certificate has the values of the series of one server certificate.
type Certificate struct {
	File                string
	NotBefore, NotAfter time.Time
	StapledUntil        time.Time // zero without an OCSP response that expires
}

// CRL has the values of the series of one revocation list.
type CRL struct {
	File, Issuer           string
	ThisUpdate, NextUpdate time.Time // NextUpdate is zero if the list has none
	Number                 *big.Int  // nil if it has none
	Entries                int
	Unusable               bool // it cannot be used, and its CA has to do without it
}

// Loaded records a successful load of a configuration with these certificates and
// lists.
func (s *Set) Loaded(at time.Time, certs []Certificate, crls []CRL) {
	s.reloads.WithLabelValues("success").Inc()
	s.reloadOK.Set(1)
	s.reloadTime.Set(seconds(at))
	for _, v := range []interface{ Reset() }{
		s.certNotBefore, s.certNotAfter, s.ocspNext, s.crlThis, s.crlNext, s.crlNumber, s.crlEntries, s.crlUnusable,
	} {
		v.Reset() // a removed file must not cause alerts any more
	}
	for _, c := range certs {
		file := label(c.File)
		s.certNotBefore.WithLabelValues(file).Set(seconds(c.NotBefore))
		s.certNotAfter.WithLabelValues(file).Set(seconds(c.NotAfter))
		if !c.StapledUntil.IsZero() {
			s.ocspNext.WithLabelValues(file).Set(seconds(c.StapledUntil))
		}
	}
	for _, c := range crls {
		file, issuer := label(c.File), label(c.Issuer)
		if c.Unusable {
			s.crlUnusable.WithLabelValues(file, issuer).Set(1)
			continue
		}
		s.crlThis.WithLabelValues(file, issuer).Set(seconds(c.ThisUpdate))
		s.crlEntries.WithLabelValues(file, issuer).Set(float64(c.Entries))
		if c.Number != nil {
			number, _ := new(big.Float).SetInt(c.Number).Float64()
			s.crlNumber.WithLabelValues(file, issuer).Set(number)
		}
		next := math.Inf(1)
		if !c.NextUpdate.IsZero() {
			next = seconds(c.NextUpdate)
		}
		s.crlNext.WithLabelValues(file, issuer).Set(next)
	}
}

// LoadFailed records a failed load. crl means that a revocation list was the reason.
func (s *Set) LoadFailed(crl bool) {
	s.reloads.WithLabelValues("failure").Inc()
	s.reloadOK.Set(0)
	if crl {
		s.crlFailures.Inc()
	}
}

func seconds(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }

// label replaces invalid UTF-8 in s, which a label must not have but file names and
// names in certificates can.
func label(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }
