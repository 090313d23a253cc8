package crl

import (
	"errors"
	"net/url"
	"strings"
)

// FromCertificates is the entry of crl_urls that stands for the distribution points of
// the configured certificates.
const FromCertificates = "from-certificates"

// CheckURL completes a sentence that begins with the URL.
func CheckURL(text string) error {
	if text == FromCertificates {
		return nil
	}
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return errors.New("is no URL")
	case strings.HasPrefix(strings.ToLower(u.Scheme), "ldap"):
		return errors.New("is LDAP, which is not supported: name a location by HTTP")
	case u.Scheme != "http" && u.Scheme != "https":
		return errors.New("must begin with http:// or https://")
	case u.Hostname() == "":
		return errors.New("names no host")
	case u.User != nil:
		return errors.New("has a user name, which the log and the metrics would show: lists are public, so name a URL without")
	case u.Fragment != "":
		return errors.New("has a fragment, which no server sees")
	}
	return nil
}
