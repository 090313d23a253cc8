package config

import (
	"path/filepath"
	"slices"

	"pgwicket/tlsconfig"
)

// Files returns what the configuration at path consists of: the file itself,
// and every file and directory that it names, whether or not they are there. A
// file whose form is wrong names none, for Load would read none of them.
func Files(path string) []string {
	files := []string{path}
	text, err := read(path)
	if err != nil {
		return files
	}
	f, _, problems := parse(text)
	if len(problems) > 0 {
		return files
	}
	for _, p := range tlsPaths(&f.TLS, filepath.Dir(path)) {
		if !slices.Contains(files, *p) {
			files = append(files, *p)
		}
	}
	return files
}

// tlsPaths makes the paths of the tls section that are relative start at dir,
// and returns those that are set.
func tlsPaths(o *tlsconfig.Options, dir string) (set []*string) {
	all := []*string{&o.CertFile, &o.KeyFile, &o.OCSPFile, &o.CAFile, &o.CRLFile, &o.CRLDir}
	for i := range o.Certificates {
		all = append(all, &o.Certificates[i].CertFile, &o.Certificates[i].KeyFile, &o.Certificates[i].OCSPFile)
	}
	for _, p := range all {
		if *p == "" {
			continue
		}
		if !filepath.IsAbs(*p) {
			*p = filepath.Join(dir, *p)
		}
		set = append(set, p)
	}
	return set
}
