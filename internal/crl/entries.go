package crl

import (
	"bytes"
	"errors"
	"fmt"
	"hash/maphash"
	"math/bits"
	"time"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// entries are the DER of revokedCertificates and an index over it, which takes some ten bytes for each entry. A Go map
// from serial to entry would take several times that, and every garbage collection would scan it.
type entries struct {
	der   cryptobyte.String
	count int // of all entries, including those that revoke nothing
	seed  maphash.Seed
	slots []uint32 // open addressing, a power of two long: 0 is free, the rest is an offset into der plus one
}

// Entry is the revocation of one certificate.
type Entry struct {
	Date   time.Time
	Reason int // RFC 5280 section 5.3.1; see ReasonName
}

const reasonRemoveFromCRL = 8

var reasonNames = []string{
	"unspecified", "keyCompromise", "cACompromise", "affiliationChanged", "superseded", "cessationOfOperation",
	"certificateHold", "7", "removeFromCRL", "privilegeWithdrawn", "aACompromise",
}

// ReasonName returns the name of a reason code of RFC 5280 section 5.3.1, or the number if it has none.
func ReasonName(code int) string {
	if code < 0 || code >= len(reasonNames) {
		return fmt.Sprint(code)
	}
	return reasonNames[code]
}

// readEntries reads every entry of revokedCertificates, so that a lookup cannot fail. With an error it has read those that
// have a serial number.
func readEntries(der cryptobyte.String, version int) (r entries, first error) {
	r = entries{der: der, seed: maphash.MakeSeed()}
	var revoked []uint32
	for rest := der; !rest.Empty(); r.count++ {
		at := len(der) - len(rest)
		serial, entry, err := readEntry(&rest, version)
		if first == nil {
			first = err
		}
		if serial == nil {
			break
		}
		// removeFromCRL has a meaning in delta lists only. In a complete list such an entry revokes nothing, as in
		// OpenSSL.
		if entry.Reason != reasonRemoveFromCRL {
			revoked = append(revoked, uint32(at)+1) // der fits: see MaxSize
		}
	}
	if len(revoked) == 0 {
		return r, first
	}
	r.slots = make([]uint32, 1<<bits.Len(uint(len(revoked)+len(revoked)/2))) // a third to two thirds full
	for _, slot := range revoked {
		r.add(slot)
	}
	return r, first
}

// add keeps the first of several entries for one serial. With all of them, a list that repeats one serial would take
// quadratic time.
func (r *entries) add(slot uint32) {
	serial := r.serial(slot)
	for i := maphash.Bytes(r.seed, serial); ; i++ {
		switch s := &r.slots[i&uint64(len(r.slots)-1)]; {
		case *s == 0:
			*s = slot
			return
		case bytes.Equal(r.serial(*s), serial):
			return
		}
	}
}

// find returns the entry that revokes a serial, given as the contents of its INTEGER.
func (r *entries) find(serial []byte) (Entry, bool) {
	if len(r.slots) == 0 {
		return Entry{}, false
	}
	for i := maphash.Bytes(r.seed, serial); ; i++ {
		slot := r.slots[i&uint64(len(r.slots)-1)]
		if slot == 0 {
			return Entry{}, false
		}
		if bytes.Equal(r.serial(slot), serial) {
			rest := r.der[slot-1:]
			_, entry, _ := readEntry(&rest, 2) // readEntries has read it without an error
			return entry, true
		}
	}
}

func (r *entries) serial(slot uint32) []byte {
	var entry, serial cryptobyte.String
	rest := r.der[slot-1:]
	rest.ReadASN1(&entry, asn1.SEQUENCE)
	entry.ReadASN1(&serial, asn1.INTEGER)
	return serial
}

// errForeignEntry is an entry of an indirect list.
var errForeignEntry = errors.New("is an indirect CRL: it has an entry for another CA's certificate (extension 2.5.29.29): " +
	"use the complete CRL of each CA instead")

// readEntry reads one entry of revokedCertificates. With an error the serial number is nil if it cannot be read.
func readEntry(list *cryptobyte.String, version int) (serial []byte, r Entry, err error) {
	var entry, number, extensions cryptobyte.String
	var extended bool
	if !list.ReadASN1(&entry, asn1.SEQUENCE) || !entry.ReadASN1(&number, asn1.INTEGER) || !isMinimal(number) {
		return nil, r, errMalformed
	}
	if !readTime(&entry, &r.Date) || !entry.ReadOptionalASN1(&extensions, &extended, asn1.SEQUENCE) || !entry.Empty() {
		return number, r, errMalformed
	}
	if extended && version == 1 {
		return number, r, errors.New("is a CRL of version 1 whose entries have extensions, which only version 2 has: have the CA write it again")
	}
	for reasons := 0; !extensions.Empty(); {
		x, ok := readExtension(&extensions)
		if !ok {
			return number, r, errMalformed
		}
		switch id := string(x.id); {
		case id == idCertificateIssuer:
			return number, r, errForeignEntry
		// RFC 5280 section 5.3: the list must not be used then, for any certificate. OpenSSL knows no other extension of an
		// entry (crl_set_issuers in crypto/x509/x_crl.c).
		case x.critical:
			return number, r, fmt.Errorf("has an entry (serial %X) with the unknown critical extension %s: "+
				"use a CRL without it", []byte(number), x.name())
		case id == idReasonCode:
			if reasons++; reasons > 1 || !x.value.ReadASN1Enum(&r.Reason) || !x.value.Empty() {
				r.Reason = 0
				return number, r, errMalformed
			}
		}
	}
	return number, r, nil
}

// isMinimal reports whether b is the content of an INTEGER in DER. Serials are compared as bytes, so a number in more
// bytes than it needs would not be found.
func isMinimal(b []byte) bool {
	if len(b) < 2 {
		return len(b) == 1
	}
	return (b[0] != 0 || b[1] >= 0x80) && (b[0] != 0xff || b[1] < 0x80)
}
