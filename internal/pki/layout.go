package pki

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"pgwicket/internal/statefile"
)

// layout is where the files of one authority are. The names are those of this package and
// of easy-rsa, or those of "openssl ca" without a configuration (demoCA).
type layout struct {
	dir, cert, key, certsDir string
}

func layoutOf(dir string) layout {
	l := layout{dir, filepath.Join(dir, "ca.crt"), filepath.Join(dir, "private", "ca.key"), filepath.Join(dir, "newcerts")}
	if isThere(filepath.Join(dir, "cacert.pem")) && !isThere(l.cert) {
		l.cert, l.key = filepath.Join(dir, "cacert.pem"), filepath.Join(dir, "private", "cakey.pem")
	}
	if top := filepath.Join(dir, "ca.key"); isThere(top) && !isThere(l.key) {
		l.key = top
	}
	if bySerial := filepath.Join(dir, "certs_by_serial"); isThere(bySerial) && !isThere(l.certsDir) {
		l.certsDir = bySerial
	}
	return l
}

func (l layout) index() string      { return filepath.Join(l.dir, "index.txt") }
func (l layout) attributes() string { return filepath.Join(l.dir, "index.txt.attr") }
func (l layout) serial() string     { return filepath.Join(l.dir, "serial") }
func (l layout) number() string     { return filepath.Join(l.dir, "crlnumber") }
func (l layout) list() string       { return filepath.Join(l.dir, "crl.pem") }

// certOf is the copy that "openssl ca" makes of each certificate.
func (l layout) certOf(serial string) string { return filepath.Join(l.certsDir, serial+".pem") }

func isThere(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// maxFile is far above an index.txt of 100,000 certificates.
const maxFile = 64 << 20

// readFile reads a regular file.
func readFile(path string) ([]byte, error) {
	f, err := statefile.Open(path, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = fmt.Errorf("%s is longer than %d bytes", path, maxFile)
	}
	return data, err
}

// readIfThere is readFile for a file that may be missing.
func readIfThere(path string) ([]byte, error) {
	data, err := readFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return data, err
}

const (
	privateFile = os.FileMode(0o600)
	privateDir  = os.FileMode(0o700)
)

// write replaces a private file.
func write(path string, data []byte) error { return statefile.Replace(path, data, privateFile, nil) }

// writeKeepingOld replaces a file and keeps what it held beside it, as openssl does.
func writeKeepingOld(path string, data []byte) error {
	old, err := readIfThere(path)
	if err != nil {
		return err
	}
	if old != nil {
		if err := write(path+".old", old); err != nil {
			return err
		}
	}
	return write(path, data)
}

// checkPrivate refuses what other accounts can read, or own. Root's files are as good as
// those of this account.
func checkPrivate(paths ...string) error {
	for _, path := range paths {
		st, err := os.Stat(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if owner := ownerOf(st); owner > 0 && owner != os.Geteuid() {
			return fmt.Errorf("%s belongs to another account (%d), which can read and replace what is in it: run this as that account, or take it over with chown", path, owner)
		}
		if mode := st.Mode().Perm(); mode&0o077 != 0 {
			return fmt.Errorf("%s has mode %04o, so other accounts can use it: chmod go= %s", path, mode, path)
		}
	}
	return nil
}
