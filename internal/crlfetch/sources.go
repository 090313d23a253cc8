package crlfetch

import (
	"crypto/sha256"
	"encoding/hex"
	"net/url"
	"os"
	"slices"
	"strings"

	"pgwicket/internal/certs"
	"pgwicket/internal/crl"
)

// PointsOf returns the distribution points by HTTP in the certificates of PEM files, and
// those that are not supported.
func PointsOf(files []string) (urls, unsupported []string, err error) {
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			return nil, nil, err
		}
		bundle, err := certs.ReadBundle(file, data)
		if err != nil {
			return nil, nil, err
		}
		for _, c := range bundle.Certificates {
			for _, p := range c.DistributionPoints() {
				for _, name := range p.Name.Full {
					if name.Kind != certs.URI {
						continue
					}
					if text := string(name.Value); crl.CheckURL(text) != nil {
						unsupported = append(unsupported, text)
					} else if !slices.Contains(urls, text) {
						urls = append(urls, text)
					}
				}
			}
		}
	}
	return urls, unsupported, nil
}

// FileName is the name of the copy of a list: the host and a digest of the URL.
func FileName(u string) string {
	host := "list"
	if parsed, err := url.Parse(u); err == nil {
		host = strings.Trim(strings.Map(func(c rune) rune {
			if strings.ContainsRune("abcdefghijklmnopqrstuvwxyz0123456789.-", c) {
				return c
			}
			return '-'
		}, strings.ToLower(parsed.Hostname())), ".-")
	}
	sum := sha256.Sum256([]byte(u))
	return host + "-" + hex.EncodeToString(sum[:6]) + ".crl"
}
