package chains

import (
	"bytes"
	"encoding/asn1"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// PKITS reads the paths of NIST's Public Key Interoperability Test Suite, with their
// revocation lists, from its directory, with certs and smime below it. They are
// verified at a time at which they are in date.
func PKITS(dir string) ([]Case, error) {
	messages, err := filepath.Glob(filepath.Join(dir, "smime", "*.eml"))
	if err != nil || len(messages) < 220 {
		return nil, fmt.Errorf("%s has %d messages in smime, not the 223 of PKITS: %w", dir, len(messages), err)
	}
	root, err := os.ReadFile(filepath.Join(dir, "certs", "TrustAnchorRootCertificate.crt"))
	if err != nil {
		return nil, err
	}
	var cases []Case
	for _, message := range messages {
		c := Case{
			Name: strings.TrimSuffix(strings.TrimPrefix(filepath.Base(message), "Signed"), ".eml"),
			CA:   [][]byte{root}, Level: DefaultLevel, At: time.Date(2026, 7, 1, 0, 0, 0, 0, time.UTC),
		}
		if err := c.readMessage(message); err != nil {
			return nil, fmt.Errorf("%s: %w", message, err)
		}
		cases = append(cases, c)
	}
	return cases, nil
}

// signedData is what is needed of a signature (RFC 5652 section 5.1).
type signedData struct {
	Type    asn1.ObjectIdentifier
	Content struct {
		Version      int
		Digests      asn1.RawValue `asn1:"set"`
		Encapsulated asn1.RawValue
		Certificates asn1.RawValue `asn1:"optional,tag:0"`
		Lists        asn1.RawValue `asn1:"optional,tag:1"`
		Signers      []struct {
			Version int
			ID      struct{ Issuer, Serial asn1.RawValue } // section 10.2.4
			Rest    []asn1.RawValue                        `asn1:"-"`
		} `asn1:"set"`
	} `asn1:"explicit,tag:0"`
}

// readMessage takes the signer's certificate out of a signed message, and what was
// sent with it.
func (c *Case) readMessage(file string) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	_, body, ok := bytes.Cut(bytes.ReplaceAll(data, []byte("\r"), nil), []byte("filename=\"smime.p7s\"\n\n"))
	if !ok {
		return errors.New("it has no signature")
	}
	body, _, _ = bytes.Cut(body, []byte("\n\n"))
	der, err := base64.StdEncoding.DecodeString(strings.ReplaceAll(string(body), "\n", ""))
	if err != nil {
		return err
	}
	var message signedData
	if _, err := asn1.Unmarshal(der, &message); err != nil {
		return err
	}
	signer := message.Content.Signers[0].ID
	for _, der := range elements(message.Content.Certificates.Bytes) {
		var cert struct {
			TBS struct {
				Version   int `asn1:"explicit,tag:0"`
				Serial    asn1.RawValue
				Algorithm asn1.RawValue
				Issuer    asn1.RawValue
				Rest      []asn1.RawValue `asn1:"-"`
			}
			Rest []asn1.RawValue `asn1:"-"`
		}
		if _, err := asn1.Unmarshal(der, &cert); err != nil {
			return err
		}
		if bytes.Equal(cert.TBS.Issuer.FullBytes, signer.Issuer.FullBytes) && bytes.Equal(cert.TBS.Serial.Bytes, signer.Serial.Bytes) {
			c.Leaf = der
		} else {
			c.Sent = append(c.Sent, der)
		}
	}
	c.Lists = elements(message.Content.Lists.Bytes)
	if c.Leaf == nil || c.Lists == nil {
		return errors.New("it has no certificate of the signer, or no list")
	}
	return nil
}

// elements splits the content of a SET.
func elements(der []byte) (list [][]byte) {
	for len(der) > 0 {
		var raw asn1.RawValue
		rest, err := asn1.Unmarshal(der, &raw)
		if err != nil {
			return nil
		}
		list, der = append(list, raw.FullBytes), rest
	}
	return list
}
