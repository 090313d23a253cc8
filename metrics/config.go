package metrics

import (
	"math"
	"math/big"
	"strings"
	"time"
)

// Certificate is what the series say of one server certificate.
type Certificate struct {
	File                string
	NotBefore, NotAfter time.Time
	StapledUntil        time.Time // zero if no OCSP response ends
}

// CRL is what the series say of one revocation list.
type CRL struct {
	File, Issuer           string
	ThisUpdate, NextUpdate time.Time // NextUpdate is zero if the list names none
	Number                 *big.Int  // nil if it has none
	Entries                int
}

// Loaded records that a configuration with these certificates and lists has
// come into force.
func (s *Set) Loaded(at time.Time, certs []Certificate, crls []CRL) {
	s.reloads.WithLabelValues("success").Inc()
	s.reloadOK.Set(1)
	s.reloadTime.Set(seconds(at))
	for _, v := range []interface{ Reset() }{
		s.certNotBefore, s.certNotAfter, s.ocspNext, s.crlThis, s.crlNext, s.crlNumber, s.crlEntries,
	} {
		v.Reset() // what is no longer configured must not go on alarming
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

// LoadFailed records that a configuration could not be loaded, so that the one
// before stays in force; crl says that revocation lists were to blame.
func (s *Set) LoadFailed(crl bool) {
	s.reloads.WithLabelValues("failure").Inc()
	s.reloadOK.Set(0)
	if crl {
		s.crlFailures.Inc()
	}
}

func seconds(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }

// label makes s fit for a label, which must be UTF-8; file names and the names
// in certificates may hold anything.
func label(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }
