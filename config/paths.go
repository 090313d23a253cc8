package config

import (
	"fmt"
	"path/filepath"
	"slices"

	"pgwicket/tlsconfig"
)

// Name is a path that a configuration names, and where. The configuration's own
// has no key.
type Name struct {
	Key  string
	Line int
	Path string
}

// BackendKey is the Key of the Name that is no file to read, but where
// PostgreSQL's socket is: a directory, or an abstract name that begins with @.
const BackendKey = "backend.host"

// Names returns every path that the configuration at path consists of: first its
// own, then every file and directory that it names, whether or not they are
// there, and its backend. A file whose form is wrong names none, for Load would
// read none of them.
func Names(path string) []Name {
	names := []Name{{Line: 1, Path: path}}
	text, err := read(path)
	if err != nil {
		return names
	}
	f, lines, problems := parse(text)
	if len(problems) > 0 {
		return names
	}
	for _, p := range tlsPaths(&f.TLS, filepath.Dir(path)) {
		names = append(names, Name{p.key, lineOf(lines, p.key), *p.path})
	}
	return append(names, Name{BackendKey, lineOf(lines, BackendKey), f.Backend.Host})
}

// Files returns the Names that are read, each path once.
func Files(path string) (files []string) {
	for _, n := range Names(path) {
		if n.Key != BackendKey && !slices.Contains(files, n.Path) {
			files = append(files, n.Path)
		}
	}
	return files
}

// named is a path of the tls section, with its key.
type named struct {
	key  string
	path *string
}

// tlsPaths makes the paths of the tls section that are relative start at dir,
// and returns those that are set.
func tlsPaths(o *tlsconfig.Options, dir string) (set []named) {
	all := []named{
		{"cert_file", &o.CertFile},
		{"key_file", &o.KeyFile},
		{"ocsp_file", &o.OCSPFile},
		{"ca_file", &o.CAFile},
		{"crl_file", &o.CRLFile},
		{"crl_dir", &o.CRLDir},
	}
	for i := range o.Certificates {
		p, prefix := &o.Certificates[i], fmt.Sprintf("certificates[%d].", i)
		all = append(all, named{prefix + "cert_file", &p.CertFile}, named{prefix + "key_file", &p.KeyFile}, named{prefix + "ocsp_file", &p.OCSPFile})
	}
	for _, n := range all {
		if *n.path == "" {
			continue
		}
		if !filepath.IsAbs(*n.path) {
			*n.path = filepath.Join(dir, *n.path)
		}
		set = append(set, named{"tls." + n.key, n.path})
	}
	return set
}
