package certs

import (
	"bytes"
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
	digits, ok := bytes.CutSuffix(e.Content, []byte("Z"))
	year := 0
	switch {
	case !ok:
		return time.Time{}
	case e.ID == der.UTCTime && len(digits) == 12:
		if year = 1900; digits[0] < '5' { // RFC 5280 section 4.1.2.5.1
			year = 2000
		}
	case e.ID == der.GeneralizedTime && len(digits) == 14:
		year, digits = 100*twoDigits(digits), digits[2:]
	default:
		return time.Time{}
	}
	year += twoDigits(digits)
	month, day, hour, minute, second := twoDigits(digits[2:]), twoDigits(digits[4:]), twoDigits(digits[6:]), twoDigits(digits[8:]), twoDigits(digits[10:])
	if year < 0 || month < 0 || day < 1 || uint(hour) > 23 || uint(minute) > 59 || uint(second) > 59 {
		return time.Time{}
	}
	t := time.Date(year, time.Month(month), day, hour, minute, second, 0, time.UTC)
	if t.Month() != time.Month(month) || t.Day() != day { // there is no such day
		return time.Time{}
	}
	return t
}

// twoDigits returns their value, and a number below -10000 if they are none.
func twoDigits(b []byte) int {
	high, low := b[0]-'0', b[1]-'0'
	if high > 9 || low > 9 {
		return -20000
	}
	return 10*int(high) + int(low)
}

// inDate is ossl_x509_check_cert_time in crypto/x509/x509_vfy.c, which counts
// the second of notAfter as the end.
func (c *Certificate) inDate(at time.Time) bool {
	return !c.NotBefore.IsZero() && !c.NotAfter.IsZero() && at.Unix() >= c.NotBefore.Unix() && at.Unix() < c.NotAfter.Unix()
}
