package config

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"pgwicket/tlsconfig"
)

// Name is a path that a configuration names, and where. The configuration's own
// has no key.
type Name struct {
	Key  string
	Line int // 0 where the environment names it
	Path string
	// Backend says that it is nothing to read, but where PostgreSQL is: the
	// directory of its socket, an abstract name that begins with @, or host:port.
	Backend bool
}

// Names returns every path that the configuration at path consists of: first its
// own, if it has one, then every file and directory that it or the environment
// names, whether or not they are there, and its backends. A file whose form is
// wrong names none, for Load would read none of them.
func Names(path string) (names []Name) {
	if path != "" {
		names = []Name{{Line: 1, Path: path}}
	}
	s, problems := readSettings(path, os.Environ())
	if len(problems) > 0 {
		return names
	}
	for _, p := range s.paths(filepath.Dir(path)) {
		names = append(names, Name{Key: p.key, Line: lineOf(s.lines, p.key), Path: *p.path})
	}
	return append(names, s.places(s.lines)...)
}

// places are where the backends are, as far as that can be read.
func (f *file) places(lines map[string]int) (names []Name) {
	add := func(key string, b backend) {
		ports := b.Port.list()
		for i, host := range b.hosts() {
			if !isSocket(host) {
				host = net.JoinHostPort(host, strconv.Itoa(ports[min(i, len(ports)-1)]))
			}
			names = append(names, Name{Key: key + ".host", Line: lineOf(lines, key+".host"), Path: host, Backend: true})
		}
	}
	if has(lines, "backend") || len(f.Backends) == 0 {
		add("backend", f.Backend)
	}
	for i, b := range f.Backends {
		key := fmt.Sprintf("backends[%d]", i)
		add(key, completed(lines, key, b.backend))
	}
	return names
}

// Files returns the Names that are read, each path once.
func Files(path string) (files []string) {
	for _, n := range Names(path) {
		if !n.Backend && !slices.Contains(files, n.Path) {
			files = append(files, n.Path)
		}
	}
	return files
}

// named is a path, with its key.
type named struct {
	key  string
	path *string
}

// paths makes the paths that are relative start at dir, and returns those that are
// set.
func (f *file) paths(dir string) (set []named) {
	all := append(pathsOf("tls.", &f.TLS), pathsOf("admin.tls.", &f.Admin.TLS)...)
	add := func(key string, b *backend) {
		if b.SSLRootCert != tlsconfig.SystemRoots {
			all = append(all, named{key + ".sslrootcert", &b.SSLRootCert})
		}
		all = append(all, named{key + ".sslcrl", &b.SSLCRL}, named{key + ".sslcrldir", &b.SSLCRLDir},
			named{key + ".sslcert", &b.SSLCert}, named{key + ".sslkey", &b.SSLKey})
	}
	add("backend", &f.Backend)
	for i := range f.Backends {
		add(fmt.Sprintf("backends[%d]", i), &f.Backends[i].backend)
	}
	for _, n := range all {
		if *n.path == "" {
			continue
		}
		if !filepath.IsAbs(*n.path) {
			*n.path = filepath.Join(dir, *n.path)
		}
		set = append(set, n)
	}
	return set
}

func pathsOf(section string, o *tlsconfig.Options) []named {
	all := []named{
		{section + "cert_file", &o.CertFile},
		{section + "key_file", &o.KeyFile},
		{section + "ocsp_file", &o.OCSPFile},
		{section + "ca_file", &o.CAFile},
		{section + "crl_file", &o.CRLFile},
		{section + "crl_dir", &o.CRLDir},
	}
	for i := range o.Certificates {
		p, prefix := &o.Certificates[i], fmt.Sprintf("%scertificates[%d].", section, i)
		all = append(all, named{prefix + "cert_file", &p.CertFile}, named{prefix + "key_file", &p.KeyFile}, named{prefix + "ocsp_file", &p.OCSPFile})
	}
	return all
}
