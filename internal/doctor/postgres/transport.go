package postgres

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"pgwicket/internal/doctor/report"
	"pgwicket/internal/phrase"
	"pgwicket/internal/statefile"
)

// transportChecks are those of the certificate and the list of PostgreSQL itself.
func transportChecks() []check {
	return []check{
		funcCheck{about{"ssl_certificate", report.Transport, "6.8", "Clients that verify the server refuse a certificate that has ended."}, checkCertificate},
		funcCheck{about{"ssl_crl", report.Transport, "6.8", "With a list that is out of date PostgreSQL refuses every client certificate."}, checkList},
	}
}

// daysLeft are the days from which on a certificate or a list is about to end.
const daysLeft = 14

// maxPEM is far above a certificate with its chain. It bounds what a server can make doctor
// read, which may be root.
const maxPEM = 16 << 20

// loadPEM has the server read the files of its TLS, which are not on this machine. A
// superuser may; others get the reason why not.
func (s *server) loadPEM(ctx context.Context, conn *pgconn.PgConn) {
	s.files.pem = make(map[string]remoteFile)
	if v, _ := s.value("ssl"); v != "on" {
		return
	}
	for _, parameter := range []string{"ssl_cert_file", "ssl_crl_file"} {
		if v, _ := s.value(parameter); v == "" {
			continue
		}
		rows, err := Query(ctx, conn, fmt.Sprintf("select encode(pg_read_binary_file(current_setting('%s'), 0, %d), 'base64')", parameter, maxPEM))
		if err != nil || len(rows) != 1 {
			s.files.pem[parameter] = remoteFile{err: err}
			continue
		}
		text, err := base64.StdEncoding.DecodeString(rows[0][0]) // which passes over line ends
		s.files.pem[parameter] = remoteFile{text, err}
	}
}

// pemOf returns the first block of a file that a parameter names.
func (s *server) pemOf(parameter string) ([]byte, string, error) {
	file, _ := s.value(parameter)
	data, _ := s.value("data_directory")
	if !filepath.IsAbs(file) {
		file = filepath.Join(data, file)
	}
	var text []byte
	var err error
	if s.Local {
		text, err = statefile.Read(file, maxPEM)
	} else {
		text, err = s.files.pem[parameter].text, s.files.pem[parameter].err
	}
	if err != nil {
		return nil, file, errors.New(Reason(err))
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, file, errors.New("no PEM in " + file)
	}
	return block.Bytes, file, nil
}

// readAs says who can read the files of the server.
func (s *server) readAs() string {
	if s.Local {
		return "run doctor as root or as the account of PostgreSQL"
	}
	return "connect as a superuser, or run doctor on the machine of PostgreSQL"
}

// ends judges the end of a certificate or a list.
func (s *server) ends(what, file string, end time.Time, fix string) []report.Finding {
	left := end.Sub(s.Now)
	switch {
	case left <= 0:
		return []report.Finding{report.New(report.Fail, safe(file), what+" ended on "+phrase.Until(end, s.Now), fix)}
	case left < daysLeft*24*time.Hour:
		return []report.Finding{report.New(report.Warn, safe(file), what+" ends on "+phrase.Until(end, s.Now), fix)}
	}
	return []report.Finding{report.Passed("%s ends on %s", what, phrase.Until(end, s.Now))}
}

func checkCertificate(_ context.Context, s *server) []report.Finding {
	if v, _ := s.value("ssl"); v != "on" {
		return []report.Finding{report.Passed("PostgreSQL has no TLS of its own, so it needs none")}
	}
	der, file, err := s.pemOf("ssl_cert_file")
	if err != nil {
		return []report.Finding{report.New(report.Skip, "ssl_cert_file", safe(err.Error()), s.readAs())}
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return []report.Finding{report.New(report.Skip, safe(file), safe(err.Error()), "")}
	}
	return s.ends("the certificate of PostgreSQL", file, cert.NotAfter, "write a new pair over ssl_cert_file and ssl_key_file\nselect pg_reload_conf();")
}

func checkList(_ context.Context, s *server) []report.Finding {
	tls, _ := s.value("ssl")
	if v, _ := s.value("ssl_crl_file"); v == "" || tls != "on" {
		return []report.Finding{report.Passed("ssl_crl_file is empty, or not used")}
	}
	der, file, err := s.pemOf("ssl_crl_file")
	if err != nil {
		return []report.Finding{report.New(report.Skip, "ssl_crl_file", safe(err.Error()), s.readAs())}
	}
	list, err := x509.ParseRevocationList(der)
	switch {
	case err != nil:
		return []report.Finding{report.New(report.Skip, safe(file), safe(err.Error()), "")}
	case list.NextUpdate.IsZero():
		return []report.Finding{report.Passed("the list has no end")}
	}
	return s.ends(fmt.Sprintf("the list in %s", filepath.Base(file)), file, list.NextUpdate, "write a new list over ssl_crl_file\nselect pg_reload_conf();")
}
