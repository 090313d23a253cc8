package doctor

import (
	"fmt"
	"regexp"
	"strings"
)

// weakCiphers matches the words of an OpenSSL list that enable weak suites.
var weakCiphers = regexp.MustCompile(`(?i)(^|[:, ])(MEDIUM|LOW|EXP(ORT)?|ALL|[ae]?NULL|3DES|DES|RC4|MD5|SEED|IDEA|COMPLEMENTOFALL)\b`)

// checkSSL checks the TLS of PostgreSQL itself.
func (s *server) checkSSL() (out []Finding) {
	anywhere, remote := s.tcp()
	if !anywhere {
		return []Finding{pass("not needed: PostgreSQL listens on no TCP address")}
	}
	if s.settings["ssl"] != "on" {
		status := Warn
		switch {
		case remote:
			status = Fail
		case s.alone:
			status = Note
		}
		return []Finding{finding(status, "ssl", "is off: connections to PostgreSQL by TCP are in clear", s.sslFix())}
	}
	if v := s.settings["ssl_min_protocol_version"]; v != "TLSv1.2" && v != "TLSv1.3" {
		out = append(out, finding(Fail, "ssl_min_protocol_version", fmt.Sprintf("is %q: versions before TLSv1.2 are deprecated (RFC 8996)", v), s.setting("ssl_min_protocol_version", "'TLSv1.2'")))
	}
	if word := weakCiphers.FindString(s.settings["ssl_ciphers"]); word != "" {
		out = append(out, finding(Warn, "ssl_ciphers", fmt.Sprintf("has %s in %q", strings.Trim(word, ":, "), s.settings["ssl_ciphers"]), s.setting("ssl_ciphers", "'HIGH:!aNULL:!3DES'")))
	}
	return orPass(out, "the TLS of PostgreSQL has no weak version or suite")
}

func (s *server) sslFix() string {
	if s.alone || s.backend != nil {
		return "put server.crt and server.key into the data directory\nalter system set ssl = on;\nselect pg_reload_conf();"
	}
	return s.noTCP() + "; or ssl = on"
}
