package config

import (
	"os"
	"path/filepath"

	"pgwicket/tlsconfig"
)

// ListSource is a directory of revocation lists that come from URLs.
type ListSource struct {
	Section   string   // tls or admin.tls
	URLs      []string // crl_urls
	Dir       string
	CAFile    string
	CertFiles []string // whose distribution points from-certificates stands for
}

// ListSources returns the sections of the configuration at path that have crl_urls. It
// loads no other file and ignores errors in other keys, as AdminOf does.
func ListSources(path string) (sources []ListSource, problems []Problem) {
	read, problems := readSettings(path, os.Environ())
	if len(problems) > 0 {
		return nil, problems
	}
	f := read.file
	f.paths(filepath.Dir(path))
	for section, o := range map[string]*tlsconfig.Options{"tls": &f.TLS, "admin.tls": &f.Admin.TLS} {
		if len(o.CRLURLs) == 0 {
			continue
		}
		for _, p := range tlsconfig.ListProblems(*o) {
			problems = append(problems, Problem{File: path, Line: lineOf(read.lines, section+"."+p.Key), Key: section + "." + p.Key, Text: p.Text})
		}
		s := ListSource{Section: section, URLs: o.CRLURLs, Dir: o.CRLDir, CAFile: o.CAFile}
		files := []string{o.CAFile, o.CertFile}
		for _, p := range o.Certificates {
			files = append(files, p.CertFile)
		}
		for _, file := range files {
			if file != "" {
				s.CertFiles = append(s.CertFiles, file)
			}
		}
		sources = append(sources, s)
	}
	return sources, problems
}
