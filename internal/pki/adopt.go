package pki

import (
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
)

// Adopt prepares a directory of "openssl ca" or easy-rsa, so that Open can open it, and
// returns what it has changed. Nothing that the other program needs is changed: it can go
// on, too. The key is read, to see that it belongs to the certificate.
func Adopt(o Options) (changes []string, err error) {
	if nested := filepath.Join(o.Dir, "pki"); !isThere(layoutOf(o.Dir).cert) && isThere(layoutOf(nested).cert) {
		return nil, fmt.Errorf("%s has no CA, but %s has: name that", o.Dir, nested)
	}
	if !isThere(layoutOf(o.Dir).cert) {
		return nil, fmt.Errorf("%s has neither ca.crt nor cacert.pem, so there is no CA to adopt", o.Dir)
	}
	unlock, err := lock(o.Dir)
	if err != nil {
		return nil, err
	}
	defer unlock()
	a, err := openAuthority(o.Dir, o.Secrets)
	if err != nil {
		return nil, err
	}
	if changes, err = makePrivate(o.Dir, filepath.Join(o.Dir, "private"), filepath.Join(o.Dir, "root"), a.files.key); err != nil {
		return changes, err
	}
	if _, err := a.key(); err != nil {
		return changes, err
	}
	changes, err = a.complete(changes)
	if err != nil || a.selfSigned() {
		return changes, err
	}
	return adoptRoot(o, changes)
}

// adoptRoot completes the directory of the root, of which only the certificate is needed.
func adoptRoot(o Options, changes []string) ([]string, error) {
	dir := filepath.Join(o.Dir, "root")
	if !isThere(layoutOf(dir).cert) {
		return changes, fmt.Errorf("%s is an intermediate: put the certificate of its root into %s, and the root's list into %s", o.Dir,
			filepath.Join(dir, "ca.crt"), filepath.Join(dir, "crl.pem"))
	}
	if index := layoutOf(dir).index(); !isThere(index) {
		if err := write(index, nil); err != nil {
			return changes, err
		}
		changes = append(changes, "made "+index)
	}
	root, err := openAuthority(dir, o.Secrets)
	if err != nil {
		return changes, err
	}
	return root.complete(changes)
}

func makePrivate(paths ...string) (changes []string, err error) {
	for _, path := range paths {
		st, err := os.Stat(path)
		if err != nil {
			continue
		}
		if mode := st.Mode().Perm(); mode&0o077 != 0 {
			if err := os.Chmod(path, mode&0o700); err != nil {
				return changes, err
			}
			changes = append(changes, fmt.Sprintf("changed the mode of %s from %04o to %04o", path, mode, mode&0o700))
		}
	}
	return changes, nil
}

// complete makes the files that are missing.
func (a *authority) complete(changes []string) ([]string, error) {
	if !isThere(a.files.certsDir) {
		if err := os.Mkdir(a.files.certsDir, privateDir); err != nil {
			return changes, err
		}
		changes = append(changes, "made "+a.files.certsDir)
	}
	number := "01\n"
	if last := a.listNumber(); last != nil {
		number = serialText(new(big.Int).Add(last, big.NewInt(1))) + "\n"
	}
	next, err := randomSerial()
	if err != nil {
		return changes, err
	}
	for _, f := range []struct{ path, text string }{{a.files.number(), number}, {a.files.serial(), serialText(next) + "\n"}} {
		if isThere(f.path) {
			continue
		}
		if err := write(f.path, []byte(f.text)); err != nil {
			return changes, err
		}
		changes = append(changes, fmt.Sprintf("made %s with %s", f.path, strings.TrimSpace(f.text)))
	}
	// With unique_subject = yes, which is openssl's default, openssl does not read an index
	// in which a certificate was renewed.
	const several = "unique_subject = no\n"
	if text, err := readIfThere(a.files.attributes()); err != nil || string(text) == several {
		return changes, err
	}
	if err := writeKeepingOld(a.files.attributes(), []byte(several)); err != nil {
		return changes, err
	}
	return append(changes, fmt.Sprintf("wrote %q into %s", strings.TrimSpace(several), a.files.attributes())), nil
}
