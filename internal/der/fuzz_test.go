package der_test

import (
	"bytes"
	"encoding/asn1"
	"math/big"
	"testing"

	"pgwicket/internal/der"
	"pgwicket/internal/tlstest"
)

// element is one of a walk through an encoding: where it begins, its header and its content.
type element struct {
	at, depth, header, length int
	id                        byte
}

// walk takes an encoding apart, and says whether it could read all of it.
func walk(data []byte) (all []element, ok bool) {
	var descend func(in der.Input, at, depth int) bool
	descend = func(in der.Input, at, depth int) bool {
		for !in.Empty() {
			e, ok := in.Next()
			if !ok {
				return false
			}
			header := len(e.Full) - len(e.Content)
			all = append(all, element{at, depth, header, len(e.Content), e.ID})
			if e.ID&0x20 != 0 && depth < 100 && !descend(e.Content, at+header, depth+1) {
				return false
			}
			at += len(e.Full)
		}
		return true
	}
	return all, descend(data, 0, 0)
}

func addSeeds(add func([]byte)) {
	ca := tlstest.NewCA("seed")
	add(ca.Cert.Raw)
	add(ca.CRL(nil))
	for _, seed := range []string{
		"", "\x00\x00", "\x05\x00", "\x30\x80\x00\x00", "\x30\x84\xff\xff\xff\xff", "\x04\x81\x01a", "\x04\x82\x00\x01a",
		"\x01\x01\x01", "\x02\x01\x80", "\x02\x02\x00\x80", "\x02\x02\xff\x80", "\x02\x02\x00\x01", "\x02\x00",
		"\x03\x02\x07\x80", "\x03\x02\x07\xff", "\x03\x01\x00", "\x03\x01\x01", "\x03\x02\x08\x00",
		"\x06\x03\x55\x04\x03", "\x06\x02\x80\x01", "\x06\x01\x80", "\x06\x0a\x2b\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
		"\x1f\x1f\x00", "\xbf\x81\x7f\x02\x05\x00", "\x1f\xff\xff\xff\xff\xff\x7f\x00",
		"\xa0\x03\x02\x01\x02", "\x31\x0b\x30\x09\x06\x03\x55\x04\x03\x13\x02ab",
	} {
		add([]byte(seed))
	}
}

// FuzzNext compares the reader with encoding/asn1, which reads DER only: what that reads, Next reads the same.
func FuzzNext(f *testing.F) {
	addSeeds(func(seed []byte) { f.Add(seed) })
	f.Fuzz(func(t *testing.T, data []byte) {
		in := der.Input(data)
		e, ok := in.Next()
		var theirs asn1.RawValue
		rest, err := asn1.Unmarshal(data, &theirs)
		switch {
		case !ok && !bytes.Equal(in, data):
			t.Errorf("%d bytes of what cannot be read are taken", len(data)-len(in))
		case ok && len(e.Full)+len(in) != len(data):
			t.Errorf("%d bytes are read and %d left of %d", len(e.Full), len(in), len(data))
		case err != nil || theirs.Tag == 0 && theirs.Class == 0:
		case !ok && theirs.Tag < 1<<28: // longer numbers of a tag are refused
			t.Errorf("encoding/asn1 reads it: %+v", theirs)
		case ok && (!bytes.Equal(e.Content, theirs.Bytes) || !bytes.Equal(e.Full, theirs.FullBytes) || !bytes.Equal(in, rest)):
			t.Errorf("encoding/asn1 reads %x, and leaves %x; we read %x, and leave %x", theirs.FullBytes, rest, e.Full, []byte(in))
		}
		if !ok {
			return
		}
		compareContent(t, e)
		if e.ID&0x1f != 0x1f {
			compareAppend(t, e)
		}
		if all, _ := walk(data); len(all) > len(data) {
			t.Errorf("%d elements in %d bytes", len(all), len(data))
		}
	})
}

// compareContent compares what the content of an element is.
func compareContent(t *testing.T, e der.Element) {
	t.Helper()
	canonical := der.Append(nil, e.ID, e.Content) // encoding/asn1 refuses a long form of the length
	_ = der.ValidAny(e)
	switch e.ID {
	case der.Integer:
		var theirs *big.Int
		_, err := asn1.Unmarshal(canonical, &theirs)
		if der.ValidInteger(e.Content) != (err == nil) {
			t.Errorf("INTEGER %x: encoding/asn1 says %v", e.Content, err)
		}
		if small := der.SmallInteger(e.Content); err == nil && small >= 0 && theirs.Cmp(big.NewInt(int64(small))) != 0 {
			t.Errorf("INTEGER %x is %v, not %d", e.Content, theirs, small)
		}
	case der.ObjectIdentifier:
		var theirs asn1.ObjectIdentifier
		_, err := asn1.Unmarshal(canonical, &theirs)
		in := der.Input(canonical)
		id, ok := in.ReadOID()
		if !ok && err == nil || ok && !bytes.Equal(id, e.Content) {
			t.Errorf("OBJECT IDENTIFIER %x: encoding/asn1 says %v, %v", e.Content, theirs, err)
		}
		if ok && err == nil && der.OID(id).String() != theirs.String() {
			t.Errorf("OBJECT IDENTIFIER %x is %v, not %v", e.Content, theirs, der.OID(id))
		}
	case der.BitString:
		var theirs asn1.BitString
		_, err := asn1.Unmarshal(canonical, &theirs)
		before := bytes.Clone(e.Content)
		bits, unused, ok := der.Bits(e.Content)
		if !ok && err == nil || ok && err == nil && (!bytes.Equal(bits, theirs.Bytes) || 8*len(bits)-unused != theirs.BitLength) {
			t.Errorf("BIT STRING %x: encoding/asn1 says %+v, %v", e.Content, theirs, err)
		}
		if ok && unused > 0 && len(bits) > 0 && bits[len(bits)-1]&(1<<unused-1) != 0 {
			t.Errorf("BIT STRING %x: the bits behind its end are %x", e.Content, bits)
		}
		if !bytes.Equal(before, e.Content) {
			t.Errorf("BIT STRING %x was changed", before)
		}
	}
}

// compareAppend encodes an element again.
func compareAppend(t *testing.T, e der.Element) {
	t.Helper()
	encoded := der.Append(nil, e.ID, e.Content)
	if len(encoded) != der.HeaderLength(len(e.Content))+len(e.Content) {
		t.Errorf("%d bytes have a header of %d", len(e.Content), der.HeaderLength(len(e.Content)))
	}
	in := der.Input(encoded)
	if again, ok := in.Next(); !ok || !in.Empty() || again.ID != e.ID || !bytes.Equal(again.Content, e.Content) {
		t.Errorf("%x becomes %x", e.Full, encoded)
	}
}
