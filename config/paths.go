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

// Name is a path in a configuration, with its key and line. The path of the
// configuration file itself has no key.
type Name struct {
	Key  string
	Line int // 0 if the environment sets it
	Path string
	// Backend marks the address of a backend instead of a file: the directory of a
	// socket, an abstract name that begins with @, or host:port.
	Backend bool
}

// Names returns the path of the configuration file, if there is one, every file and
// directory that the configuration names, whether or not it exists, and the backends.
// After a syntax error it returns only the configuration file, because Load would not
// read the others.
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
	return append(names, s.backendNames(s.lines)...)
}

// backendNames returns the addresses of the backends, as far as they are valid.
func (f *file) backendNames(lines map[string]int) (names []Name) {
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
		add(key, withDefaults(lines, key, b.backend))
	}
	return names
}

// Written returns the directories that a gate with this configuration writes to, by the keys that name them or
// something in them: state_dir, audit.file and admin.socket. After a syntax error there are none.
func Written(path string) (names []Name) {
	s, problems := readSettings(path, os.Environ())
	if len(problems) > 0 {
		return nil
	}
	dir := filepath.Dir(path)
	add := func(key, path string) {
		if path != "" && path[0] != '@' {
			names = append(names, Name{Key: key, Line: lineOf(s.lines, key), Path: absolute(dir, path)})
		}
	}
	add("state_dir", s.StateDir)
	for _, n := range []struct{ key, file string }{{"audit.file", s.Audit.File}, {"admin.socket", s.Admin.Socket}} {
		if n.file != "" {
			add(n.key, filepath.Dir(absolute(dir, n.file)))
		}
	}
	return names
}

// Files returns the paths of Names that are files or directories, each once.
func Files(path string) (files []string) {
	for _, n := range Names(path) {
		if !n.Backend && !slices.Contains(files, n.Path) {
			files = append(files, n.Path)
		}
	}
	return files
}

// Files returns the paths of the files and directories that the configuration names.
func (c *Config) Files() (files []string) {
	f := c.Settings.file
	for _, p := range f.paths(filepath.Dir(c.path)) {
		if !slices.Contains(files, *p.path) {
			files = append(files, *p.path)
		}
	}
	return files
}

// pathKey is a key with a path.
type pathKey struct {
	key  string
	path *string
}

// paths makes relative paths start at dir, and returns all paths that are set.
func (f *file) paths(dir string) (set []pathKey) {
	all := append(pathsOf("tls.", &f.TLS), pathsOf("admin.tls.", &f.Admin.TLS)...)
	add := func(key string, b *backend) {
		if b.SSLRootCert != tlsconfig.SystemRoots {
			all = append(all, pathKey{key + ".sslrootcert", &b.SSLRootCert})
		}
		all = append(all, pathKey{key + ".sslcrl", &b.SSLCRL}, pathKey{key + ".sslcrldir", &b.SSLCRLDir},
			pathKey{key + ".sslcert", &b.SSLCert}, pathKey{key + ".sslkey", &b.SSLKey}, pathKey{key + ".groups.password_file", &b.Groups.PasswordFile})
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

func pathsOf(section string, o *tlsconfig.Options) []pathKey {
	all := []pathKey{
		{section + "cert_file", &o.CertFile},
		{section + "key_file", &o.KeyFile},
		{section + "ocsp_file", &o.OCSPFile},
		{section + "ca_file", &o.CAFile},
		{section + "crl_file", &o.CRLFile},
		{section + "crl_dir", &o.CRLDir},
	}
	for i := range o.Certificates {
		p, prefix := &o.Certificates[i], fmt.Sprintf("%scertificates[%d].", section, i)
		all = append(all, pathKey{prefix + "cert_file", &p.CertFile}, pathKey{prefix + "key_file", &p.KeyFile}, pathKey{prefix + "ocsp_file", &p.OCSPFile})
	}
	return all
}
