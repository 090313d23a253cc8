package tlsconfig

import (
	"slices"
	"testing"
	"time"
)

// The strength of each certificate of ca_file, made by openssl: of the intermediates too.
func TestAuthorities(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	at := s.path
	root := openssl(t, nil, "req", "-x509", "-newkey", "rsa:1024", "-nodes", "-keyout", at("root.key"), "-subj", "/CN=weak root", "-days", "30", "-set_serial", "0x0A")
	s.write(t, "root.crt", root)
	request := openssl(t, nil, "req", "-newkey", "rsa:3072", "-nodes", "-keyout", at("sub.key"), "-subj", "/CN=sub")
	s.write(t, "sub.ext", []byte("basicConstraints=critical,CA:TRUE\n"))
	sub := openssl(t, request, "x509", "-req", "-sha1", "-CA", at("root.crt"), "-CAkey", at("root.key"), "-set_serial", "0x0B", "-extfile", at("sub.ext"), "-days", "30")
	s.write(t, "ca.crt", append(root, sub...))

	o := s.options()
	o.CAFile, o.CRLFile = at("ca.crt"), ""
	server, problems := Load(o, nil, nil, time.Now())
	if server == nil {
		t.Fatal(problems)
	}
	origin := `of "` + at("ca.crt") + `"`
	want := []Authority{
		{Origin: "certificate 1 " + origin, Subject: "CN=weak root", Serial: "0A", Key: "RSA 1024", KeyBits: 80, Signature: "RSA with SHA-256", SignatureBits: 128, Root: true},
		{Origin: "certificate 2 " + origin, Subject: "CN=sub", Serial: "0B", Key: "RSA 3072", KeyBits: 128, Signature: "RSA with SHA-1", SignatureBits: 63},
	}
	got := server.Authorities()
	for i := range got {
		if left := time.Until(got[i].NotAfter); left < 29*24*time.Hour || left > 30*24*time.Hour {
			t.Errorf("%s ends on %v", got[i].Subject, got[i].NotAfter)
		}
		got[i].NotAfter = time.Time{}
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
}
