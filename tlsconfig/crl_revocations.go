package tlsconfig

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

// revocations are the entries of a list as they came, and an index over them. A CA that revokes a million certificates
// costs its DER and some ten bytes an entry; a Go map from serial to entry would cost several times that, and be looked
// through by every garbage collection.
type revocations struct {
	der   cryptobyte.String
	count int // of all entries, also those that revoke nothing
	seed  maphash.Seed
	slots []uint32 // open addressing, a power of two long: 0 is free, the rest is an offset into der plus one
}

// revocation is what an entry says of its certificate.
type revocation struct {
	date   time.Time
	reason int
}

const reasonRemoveFromCRL = 8

// RFC 5280 section 5.3.1.
var reasonNames = []string{
	"unspecified", "keyCompromise", "cACompromise", "affiliationChanged", "superseded", "cessationOfOperation",
	"certificateHold", "7", "removeFromCRL", "privilegeWithdrawn", "aACompromise",
}

func (r revocation) reasonName() string {
	if r.reason < 0 || r.reason >= len(reasonNames) {
		return fmt.Sprint(r.reason)
	}
	return reasonNames[r.reason]
}

// readRevocations reads every entry of revokedCertificates, so that nothing is left to go wrong in a handshake.
func readRevocations(der cryptobyte.String, version int) (revocations, error) {
	r := revocations{der: der, seed: maphash.MakeSeed()}
	var revoked []uint32
	for rest := der; !rest.Empty(); r.count++ {
		at := len(der) - len(rest)
		_, entry, err := readEntry(&rest, version)
		if err != nil {
			return r, err
		}
		// In a complete list removeFromCRL takes nothing away, since there is no older list to take it from:
		// OpenSSL lets such a certificate in.
		if entry.reason != reasonRemoveFromCRL {
			revoked = append(revoked, uint32(at)+1) // der fits: see crlLimit
		}
	}
	if len(revoked) == 0 {
		return r, nil
	}
	r.slots = make([]uint32, 1<<bits.Len(uint(len(revoked)+len(revoked)/2))) // a third to two thirds full
	for _, slot := range revoked {
		r.add(slot)
	}
	return r, nil
}

// add keeps the first of several entries for one serial; with all of them, a list of nothing but repetitions would
// take quadratic time.
func (r *revocations) add(slot uint32) {
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
func (r *revocations) find(serial []byte) (revocation, bool) {
	if len(r.slots) == 0 {
		return revocation{}, false
	}
	for i := maphash.Bytes(r.seed, serial); ; i++ {
		slot := r.slots[i&uint64(len(r.slots)-1)]
		if slot == 0 {
			return revocation{}, false
		}
		if bytes.Equal(r.serial(slot), serial) {
			rest := r.der[slot-1:]
			_, entry, _ := readEntry(&rest, 2) // was read before
			return entry, true
		}
	}
}

func (r *revocations) serial(slot uint32) []byte {
	var entry, serial cryptobyte.String
	rest := r.der[slot-1:]
	rest.ReadASN1(&entry, asn1.SEQUENCE)
	entry.ReadASN1(&serial, asn1.INTEGER)
	return serial
}

// readEntry reads one entry of revokedCertificates.
func readEntry(list *cryptobyte.String, version int) (serial []byte, r revocation, err error) {
	var entry, number, extensions cryptobyte.String
	var extended bool
	if !list.ReadASN1(&entry, asn1.SEQUENCE) || !entry.ReadASN1(&number, asn1.INTEGER) || !isMinimal(number) ||
		!readTime(&entry, &r.date) || !entry.ReadOptionalASN1(&extensions, &extended, asn1.SEQUENCE) || !entry.Empty() {
		return nil, r, errMalformed
	}
	if extended && version == 1 {
		return nil, r, errors.New("is a CRL of version 1 whose entries have extensions, which only version 2 has: have the CA write it again")
	}
	for reasons := 0; !extensions.Empty(); {
		x, ok := readExtension(&extensions)
		if !ok {
			return nil, r, errMalformed
		}
		switch string(x.id) {
		case idReasonCode:
			if reasons++; reasons > 1 || !x.value.ReadASN1Enum(&r.reason) || !x.value.Empty() {
				return nil, r, errMalformed
			}
		case idCertificateIssuer:
			return nil, r, errors.New("is an indirect CRL: it has an entry for another CA's certificate (extension 2.5.29.29): " +
				"give the complete CRL of each CA instead")
		default:
			// RFC 5280 section 5.3: the list must then not be used for any certificate at all.
			if x.critical {
				return nil, r, fmt.Errorf("has an entry (serial %X) with the critical extension %s, which is not known: "+
					"give a CRL without it", []byte(number), x.name())
			}
		}
	}
	return number, r, nil
}

// isMinimal says whether these are the contents of an INTEGER in DER. Serials are compared as bytes, and the same
// number written at greater length would be another one.
func isMinimal(b []byte) bool {
	if len(b) < 2 {
		return len(b) == 1
	}
	return (b[0] != 0 || b[1] >= 0x80) && (b[0] != 0xff || b[1] < 0x80)
}
