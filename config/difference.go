package config

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"time"

	"pgwicket/acl"
	"pgwicket/tlsconfig"
)

// Settings are the keys of a configuration with their values, the defaults included, for
// the comparison of two loads.
type Settings struct {
	file  file
	lines map[string]int // of the keys
}

// PassphraseFiles returns the existing files that tls.passphrase_command names by their
// full paths.
func (s *Settings) PassphraseFiles() (files []string) {
	for word := range strings.FieldsFuncSeq(s.file.TLS.PassphraseCommand, func(r rune) bool { return strings.ContainsRune(" \t\n'\"<>|;&()$`=", r) }) {
		if st, err := os.Stat(word); strings.HasPrefix(word, "/") && err == nil && st.Mode().IsRegular() && st.Mode()&0o111 == 0 {
			files = append(files, word)
		}
	}
	return files
}

// Differences returns in one line for each key what has changed since old: the new value
// and the old one, or the entries of a list that were added and removed. What may be
// secret is not shown. It is never nil; a nil Settings has no differences.
func (s *Settings) Differences(old *Settings) []string {
	lines := []string{} // JSON shows none as [], not as null
	if s == nil || old == nil {
		return lines
	}
	d := differ{lines: lines}
	d.section("", reflect.ValueOf(old.file), reflect.ValueOf(s.file))
	return d.lines
}

// Digest returns the SHA-256 of the keys and their values, in hexadecimal. It is the same
// for two loads that no key tells apart, whatever the files that they name have in them.
func (s *Settings) Digest() string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%+v", s.file))
	return hex.EncodeToString(sum[:])
}

type differ struct{ lines []string }

func (d *differ) add(key, format string, args ...any) {
	d.lines = append(d.lines, key+": "+fmt.Sprintf(format, args...))
}

func (d *differ) section(path string, old, now reflect.Value) {
	for _, f := range reflect.VisibleFields(now.Type()) {
		key := f.Tag.Get("yaml")
		if f.Anonymous || key == "-" {
			continue
		}
		d.value(strings.TrimPrefix(path+"."+key, "."), old.FieldByIndex(f.Index), now.FieldByIndex(f.Index))
	}
}

func (d *differ) value(key string, old, now reflect.Value) {
	switch {
	case reflect.DeepEqual(old.Interface(), now.Interface()):
	case now.Kind() == reflect.Struct:
		d.section(key, old, now)
	case now.Kind() == reflect.Slice && now.Type().Elem().Kind() == reflect.Struct:
		d.entries(key, old, now)
	case now.Kind() == reflect.Slice:
		d.list(key, old.Interface().([]string), now.Interface().([]string))
	case strings.HasSuffix(key, "passphrase_command"): // it may have the passphrase in it
		d.add(key, "changed")
	default:
		d.add(key, "%s, was %s", display(key, now), display(key, old))
	}
}

// display formats a value; an empty text is the default of tlsconfig, or "not set".
func display(key string, v reflect.Value) string {
	text := fmt.Sprint(v.Interface())
	if d, ok := v.Interface().(duration); ok {
		text = plainDuration(time.Duration(d))
	}
	return cmp.Or(text, standard[key], "not set")
}

// list reports the texts that only one of two lists has.
func (d *differ) list(key string, old, now []string) {
	added, removed := onlyIn(now, old), onlyIn(old, now)
	for _, one := range added {
		d.add(key, "added %s", one)
	}
	for _, one := range removed {
		d.add(key, "removed %s", one)
	}
	if len(added)+len(removed) == 0 && len(now) > 0 && !slices.Equal(old, now) {
		d.add(key, "in another order")
	}
}

// onlyIn returns the texts of a that b does not have.
func onlyIn(a, b []string) (only []string) {
	in := make(map[string]bool, len(b))
	for _, one := range b {
		in[one] = true
	}
	for _, one := range a {
		if !in[one] {
			only = append(only, one)
		}
	}
	return only
}

// entries compares two lists of sections by the names of their entries.
func (d *differ) entries(key string, old, now reflect.Value) {
	names := func(v reflect.Value) (all []string, byName map[string]reflect.Value) {
		byName = make(map[string]reflect.Value)
		for i := range v.Len() {
			name := nameOf(v.Index(i), i)
			all, byName[name] = append(all, name), v.Index(i)
		}
		return all, byName
	}
	before, olds := names(old)
	after, news := names(now)
	d.list(key, before, after)
	for _, name := range after {
		if was, ok := olds[name]; ok {
			d.section(key+"["+name+"]", was, news[name])
		}
	}
}

// nameOf returns what an entry is called, or its number.
func nameOf(entry reflect.Value, i int) string {
	switch e := entry.Interface().(type) {
	case acl.RuleOptions:
		return cmp.Or(e.Name, fmt.Sprintf("rule %d", i+1)) // as acl names it
	case namedBackend:
		return e.Name
	case listen:
		return e.Address
	case tlsconfig.Pair:
		return e.CertFile
	}
	return fmt.Sprint(i)
}

// Gone returns what restricted clients, or what they can do, in old and is not there any
// more, in one line for each: what a file that is cut off would allow in addition. A
// restriction that was replaced by another of its kind is not gone.
func (s *Settings) Gone(old *Settings) (lines []string) {
	if s == nil || old == nil {
		return nil
	}
	was, is := &old.file, &s.file
	gone := func(key string, lost bool, format string, args ...any) {
		if lost {
			lines = append(lines, key+": "+fmt.Sprintf(format, args...))
		}
	}
	gone("acl.rules", len(was.ACL.Rules) > 0 && len(is.ACL.Rules) == 0, "all rules are gone")
	if len(is.ACL.Rules) > 0 {
		lines = append(lines, goneFromRules(was.ACL.Rules, is.ACL.Rules)...)
	}
	for _, one := range uncovered(was.ACL.Deny, is.ACL.Deny) {
		gone("acl.deny", true, "%s is gone", one)
	}
	if len(is.ACL.Rules) > 0 {
		for _, one := range onlyIn(was.ACL.Superusers, is.ACL.Superusers) {
			gone("acl.superusers", true, "%s is gone", one)
		}
	}
	gone("audit.required", was.Audit.Required && !is.Audit.Required, "true is gone")
	gone("acl.cancel_requests", was.ACL.CancelRequests == "known" && is.ACL.CancelRequests != "known", "known is gone")
	lines = append(lines, goneFromTLS("tls", &was.TLS, &is.TLS)...)
	if was.Admin.Address != "" && len(was.Admin.TLS.CAFile) > 0 {
		lines = append(lines, goneFromTLS("admin.tls", &was.Admin.TLS, &is.Admin.TLS)...)
	}
	lines = append(lines, goneLists("backend", "sslcrl", "sslcrldir", was.Backend.SSLCRL, was.Backend.SSLCRLDir, is.Backend.SSLCRL, is.Backend.SSLCRLDir)...)
	lines = append(lines, goneFromLimits(&was.Limits, &is.Limits)...)
	for i := range was.Backends {
		for j := range is.Backends {
			if a, b := &was.Backends[i], &is.Backends[j]; a.Name == b.Name {
				lines = append(lines, goneLists("backends["+a.Name+"]", "sslcrl", "sslcrldir", a.SSLCRL, a.SSLCRLDir, b.SSLCRL, b.SSLCRLDir)...)
			}
		}
	}
	return lines
}

// goneFromLimits reports limits that were stricter than their default, and now have it: that is what a limit
// has whose line is gone. Those that only say how long a client may wait are left out.
func goneFromLimits(was, is *limits) (lines []string) {
	standard := defaults().Limits
	old, now, base := reflect.ValueOf(*was), reflect.ValueOf(*is), reflect.ValueOf(standard)
	for i, f := range reflect.VisibleFields(old.Type()) {
		key := f.Tag.Get("yaml")
		a, b := old.Field(i).Convert(reflect.TypeFor[int64]()).Int(), base.Field(i).Convert(reflect.TypeFor[int64]()).Int()
		stricter := a > 0 && (b == 0 || a < b) // 0 is no limit
		switch key {
		case "authentication_timeout", "tcp_user_timeout", "drain_delay", "drain_timeout":
			continue
		case "max_cancel_requests": // 0 refuses all of them
			stricter = a < b
		case "auth_refusal":
			stricter = a > b
		}
		if stricter && now.Field(i).Equal(base.Field(i)) {
			lines = append(lines, fmt.Sprintf("limits.%s: %s is gone", key, display("limits."+key, old.Field(i))))
		}
	}
	return lines
}

// goneFromTLS is Gone for a section of TLS.
func goneFromTLS(section string, was, is *tlsconfig.Options) (lines []string) {
	lines = goneLists(section, "crl_file", "crl_dir", was.CRLFile, was.CRLDir, is.CRLFile, is.CRLDir)
	gone := func(key string, lost bool, what string) {
		if lost {
			lines = append(lines, section+"."+key+": "+what+" is gone")
		}
	}
	strict := map[tlsconfig.ClientCert]int{"": 2, tlsconfig.ClientCertRequire: 2, tlsconfig.ClientCertOptional: 1}
	gone("client_cert", strict[is.ClientCert] < strict[was.ClientCert], string(cmp.Or(was.ClientCert, tlsconfig.ClientCertRequire)))
	gone("min_protocol_version", was.MinProtocolVersion == "TLSv1.3" && is.MinProtocolVersion == "", was.MinProtocolVersion)
	gone("ciphers", len(was.Ciphers) > 0 && len(is.Ciphers) == 0, "the list")
	gone("groups", len(was.Groups) > 0 && len(is.Groups) == 0, "the list")
	gone("crl_stale", was.CRLStale == tlsconfig.CRLStaleEnd && is.CRLStale == "", string(was.CRLStale))
	return lines
}

// goneLists reports a file or a directory of revocation lists that the other one has not
// just replaced.
func goneLists(section, fileKey, dirKey, wasFile, wasDir, isFile, isDir string) (lines []string) {
	if wasFile != "" && isFile == "" && (isDir == "" || wasDir != "") {
		lines = append(lines, section+"."+fileKey+": "+wasFile+" is gone")
	}
	if wasDir != "" && isDir == "" && (isFile == "" || wasFile != "") {
		lines = append(lines, section+"."+dirKey+": "+wasDir+" is gone")
	}
	return lines
}

// uncovered returns the networks of was that none of is contains.
func uncovered(was, is []string) (lost []string) {
	covered := make(map[string]bool, len(is))
	for _, text := range is {
		if p, err := acl.ParsePrefix(text); err == nil {
			covered[p.Masked().String()] = true
		}
	}
	for _, text := range was {
		p, err := acl.ParsePrefix(text)
		found := err != nil
		for bits := p.Bits(); bits >= 0 && !found; bits-- {
			wider, err := p.Addr().Prefix(bits)
			found = err == nil && covered[wider.String()]
		}
		if !found {
			lost = append(lost, text)
		}
	}
	return lost
}

// goneFromRules reports rules that reject, and conditions of rules that allow, which are
// not there any more.
func goneFromRules(was, is []acl.RuleOptions) (lines []string) {
	now := make(map[string]acl.RuleOptions)
	for i, r := range is {
		now[cmp.Or(r.Name, fmt.Sprintf("rule %d", i+1))] = r
	}
	rejecting := func(rules []acl.RuleOptions) (n int) {
		for _, r := range rules {
			if r.Action == "reject" {
				n++
			}
		}
		return n
	}
	fewer := rejecting(is) < rejecting(was)
	for i, r := range was {
		name := cmp.Or(r.Name, fmt.Sprintf("rule %d", i+1))
		after, there := now[name]
		switch {
		case r.Action == "reject" && fewer && (!there || after.Action != "reject"):
			lines = append(lines, fmt.Sprintf("acl.rules: %q, which rejects, is gone", name))
		case r.Action != "reject" && there && after.Action != "reject":
			for _, key := range lostConditions(r, after) {
				lines = append(lines, fmt.Sprintf("acl.rules: %s of %q is gone", key, name))
			}
		}
	}
	return lines
}

// lostConditions returns the keys of the conditions that only the first of two rules has.
func lostConditions(was, is acl.RuleOptions) (keys []string) {
	a, b := reflect.ValueOf(was), reflect.ValueOf(is)
	for i := range a.NumField() {
		switch key := a.Type().Field(i).Tag.Get("yaml"); key {
		case "name", "action", "idle_timeout":
		case "certificate":
			for j := range a.Field(i).NumField() {
				if !a.Field(i).Field(j).IsZero() && b.Field(i).Field(j).IsZero() {
					keys = append(keys, key+"."+a.Field(i).Type().Field(j).Tag.Get("yaml"))
				}
			}
		default:
			if a.Field(i).Len() > 0 && b.Field(i).Len() == 0 {
				keys = append(keys, key)
			}
		}
	}
	slices.Sort(keys)
	return keys
}
