package tlsconfig

import (
	"os"
	"path/filepath"
	"strings"
	"time"

	"pgwicket/internal/certs"
	"pgwicket/internal/crl"
)

// CRLInfo describes a revocation list.
type CRLInfo = crl.Info

// crlFiles are the files of revocation lists, with the names of the options for messages.
type crlFiles struct {
	file, dir             string // either may be empty; with neither there is no revocation checking
	fileOption, dirOption string
}

// loadClientCRLs reads the lists that client certificates are checked against. previous is the set in use, or nil.
func loadClientCRLs(o Options, ca *certs.Pool, previous *crl.Set, now time.Time) (*crl.Set, []Problem) {
	files := crlFiles{file: o.CRLFile, dir: o.CRLDir, fileOption: "crl_file", dirOption: "crl_dir"}
	b := &crl.Builder{
		Policy: o.crlPolicy(), Previous: previous, KeepGone: o.KeepGone, Now: now, MinSecurityBits: bitsOf(o.MinSecurityBits), CAOption: "ca_file", Peers: "clients",
	}
	if ca != nil {
		b.CAs = ca.Certificates()
	}
	return files.load(b)
}

// load reads the files into a set, which is nil if there are no files to read. The set must not be used if there is a
// problem that is more than a warning.
func (f crlFiles) load(b *crl.Builder) (*crl.Set, []Problem) {
	if f.file == "" && f.dir == "" {
		return nil, nil
	}
	r := &report{}
	option := f.dirOption
	if f.file != "" {
		option = f.fileOption
		addCRLFile(b, option, f.file, r)
	}
	if f.dir != "" {
		addCRLDir(b, f.dirOption, f.dir, r)
	}
	if r.failed() {
		return new(crl.Set), r.problems
	}
	set, problems := b.Set(option)
	r.addCRLProblems(problems)
	return set, r.problems
}

// maxStrayWarnings is how many files of a directory without a list are named.
const maxStrayWarnings = 20

// addCRLDir reads every file of a directory. OpenSSL looks only for the names that c_rehash makes; here any name will do,
// and a link that c_rehash made to a list beside it does no harm. An entry that cannot be read concerns its CA alone.
func addCRLDir(b *crl.Builder, option, dir string, r *report) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		r.errorf(option, "%v", cannotRead(dir, err))
		return
	}
	files, strays := 0, 0
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") { // such as ..data of a volume of Kubernetes
			continue
		}
		name := filepath.Join(dir, e.Name())
		st, err := os.Stat(name)
		switch {
		case err != nil:
			files++
			r.addCRLProblems(b.Unreadable(option, name, cannotRead(name, err)))
		case st.Mode().IsRegular():
			files++
			if data, err := readFile(name, crl.MaxSize, nil); err != nil {
				r.addCRLProblems(b.Unreadable(option, name, err))
			} else {
				problems := b.AddEntry(option, name, data)
				if len(problems) == 1 && problems[0].Stray {
					if strays++; strays > maxStrayWarnings {
						continue
					}
				}
				r.addCRLProblems(problems)
			}
		}
	}
	if more := strays - maxStrayWarnings; more > 0 {
		r.warnf(option, "%q has %d more files that hold no CRL and are left aside", dir, more)
	}
	if files == 0 && !r.failed() {
		r.warnf(option, "%q holds no CRL", dir)
	}
}

func addCRLFile(b *crl.Builder, option, name string, r *report) {
	data, err := readFile(name, crl.MaxSize, nil)
	if err != nil {
		r.errorf(option, "%v", err)
		return
	}
	r.addCRLProblems(b.Add(option, name, data))
}

func (r *report) addCRLProblems(problems []crl.Problem) {
	for _, p := range problems {
		r.problems = append(r.problems, Problem{Key: p.Option, Text: p.Text, Warning: p.Warning})
	}
}
