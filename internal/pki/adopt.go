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
	if err := checkForeign(o.Dir); err != nil {
		return nil, err
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

// checkForeign refuses a directory that could make Open write elsewhere, before anything in
// it is changed: openssl and easy-rsa have no such files, and the directory may be one that
// somebody has sent.
func checkForeign(dir string) error {
	st, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	if owner := ownerOf(st); owner > 0 && owner != os.Geteuid() {
		return fmt.Errorf("%s belongs to another account (%d): run this as that account, or take it over with chown -R", dir, owner)
	}
	for _, name := range []string{"publish", "pending"} {
		path := filepath.Join(dir, name)
		st, err := os.Lstat(path)
		if err != nil {
			continue
		}
		if entries, err := os.ReadDir(path); st.IsDir() && err == nil && len(entries) == 0 {
			continue
		}
		return fmt.Errorf("%s is of a CA that pgwicket ca works in already: use --dir %s; if the directory is from somebody else, look at the file and remove it", path, dir)
	}
	return nil
}

func makePrivate(paths ...string) (changes []string, err error) {
	for _, path := range paths {
		st, err := os.Lstat(path)
		if err != nil {
			continue
		}
		if st.Mode()&os.ModeSymlink != 0 { // its target is not ours to change
			return changes, fmt.Errorf("%s is a symbolic link: put the directory or file itself there", path)
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
