package certs

import (
	"time"

	"pgwicket/internal/der"
)

func (c *Certificate) parseValidity(in *der.Input) bool {
	validity, ok := in.Read(der.Sequence)
	if !ok {
		return false
	}
	for _, date := range []*time.Time{&c.NotBefore, &c.NotAfter} {
		e, ok := validity.Next()
		if !ok || e.ID != der.UTCTime && e.ID != der.GeneralizedTime {
			return false
		}
		*date = parseTime(e)
	}
	return validity.Empty()
}

// parseTime reads the two forms that X509_cmp_time in crypto/x509/x509_vfy.c
// allows; the zero time stands for every other.
func parseTime(e der.Element) time.Time {
	layout := "20060102150405Z"
	value := string(e.Content)
	if e.ID == der.UTCTime {
		if len(value) != 13 {
			return time.Time{}
		}
		century := "19"
		if value[0] < '5' { // RFC 5280 section 4.1.2.5.1
			century = "20"
		}
		value = century + value
	}
	t, err := time.Parse(layout, value)
	if err != nil || len(value) != len(layout) {
		return time.Time{}
	}
	return t
}

// inDate is ossl_x509_check_cert_time in crypto/x509/x509_vfy.c, which counts
// the second of notAfter as the end.
func (c *Certificate) inDate(at time.Time) bool {
	return !c.NotBefore.IsZero() && !c.NotAfter.IsZero() && at.Unix() >= c.NotBefore.Unix() && at.Unix() < c.NotAfter.Unix()
}
