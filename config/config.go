// Package config reads the configuration file and the environment, checks them, and
// returns the values that a server needs: its policy and the settings of the command.
// It is the only package that uses YAML.
package config

import (
	"bytes"
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"pgwicket/acl"
	"pgwicket/internal/outcome"
	"pgwicket/internal/policy"
	"pgwicket/proxy"
	"pgwicket/tlsconfig"
)

// maxSize is enough for several hundred thousand networks, in bytes.
const maxSize = 16 << 20

// proxyHeaderTimeout is longer than needed: a load balancer sends its header at once.
const proxyHeaderTimeout = 5 * time.Second

// Config is a valid configuration with all its files loaded.
type Config struct {
	Listen         []string // addresses, as net.Listen takes them
	ListenLines    []int    // the line of each; 0 if the environment sets it
	Policy         *proxy.Policy
	TLS            *tlsconfig.Server
	TCPUserTimeout time.Duration // 0 means the default of the system
	DrainDelay     time.Duration
	DrainTimeout   time.Duration
	Admin          Admin
	LogLevel       slog.Level
	LogFormat      string // auto, json or text
	WatchFiles     bool
	ReusePort      bool   // other processes may listen on the same addresses
	User           string // the account to change to when started as root; may be empty
	UserLine       int    // the line of user, or 1 if it is not set; 0 if the environment sets it
	StateDir       string // absolute, or relative to the working directory; empty: none
	AuditFile      string // likewise; empty: no audit trail
	Landlock       bool
	Groups         []GroupLookup // what the rules need to know of roles
	RunsCommands   bool          // a passphrase command runs at each load

	// Settings has the keys and their values, to compare this load with another.
	Settings *Settings
	// Variables has the names of the environment variables that set keys.
	Variables []string

	path string
}

// At returns the file and line of a rule, or the variable that sets the rules.
func (c *Config) At(line int) string { return at(c.path, line, "acl.rules") }

// Warning returns a warning about a key of the configuration.
func (c *Config) Warning(key, text string) Problem {
	p := Problem{File: c.path, Line: lineOf(c.Settings.lines, key), Key: key, Text: text, Warning: true}
	if c.path == "" || p.Line == 0 {
		p.File, p.Line = Variable(key), 0
	}
	return p
}

// at returns the file and line of a key. Line 0 means that the environment sets it.
func at(path string, line int, key string) string {
	if line == 0 {
		return Variable(key)
	}
	return fmt.Sprintf("%s:%d", path, line)
}

// Problem is one error or warning about the configuration or a file that it names.
type Problem struct {
	File    string // or the environment variable
	Line    int    // 0 for a variable
	Key     string // empty for a syntax error
	Text    string // what is wrong and how to fix it, in one line
	Warning bool   // the configuration can be used in spite of it
}

func (p Problem) String() string {
	s := p.File + ": "
	if p.Line > 0 {
		s = fmt.Sprintf("%s:%d: ", p.File, p.Line)
	}
	if p.Warning {
		s += "warning: "
	}
	if p.Key != "" {
		s += p.Key + ": "
	}
	return s + p.Text
}

// Failed reports whether any of the problems is more than a warning.
func Failed(problems []Problem) bool {
	return slices.ContainsFunc(problems, func(p Problem) bool { return !p.Warning })
}

// Load reads the configuration at path, the environment, which takes precedence, and
// every file that they name. It reports all problems at once, in the order of their
// lines, after one of the account in user that causes others. The Config is nil if one of them is more than a warning. Load changes nothing
// in the process. If path is empty, the environment has the whole configuration.
//
// previous is the current configuration, or nil at the start: an older revocation list
// does not replace a newer one. prompt asks a person for the passphrase of a key; nil
// means that nobody can be asked.
func Load(path string, previous *Config, prompt func(string) ([]byte, error), now time.Time) (*Config, []Problem) {
	return load(path, previous, false, prompt, now)
}

// LoadChanged is Load for files that have changed, when nobody knows whether what is gone is gone on
// purpose: a revocation list stays in use if tls.crl_missing is allow and its CA has no other one.
func LoadChanged(path string, previous *Config, prompt func(string) ([]byte, error), now time.Time) (*Config, []Problem) {
	return load(path, previous, true, prompt, now)
}

func load(path string, previous *Config, keepGone bool, prompt func(string) ([]byte, error), now time.Time) (*Config, []Problem) {
	s, problems := readSettings(path, os.Environ())
	l := &loader{path: path, lines: s.lines, problems: problems, current: previous, keepGone: keepGone}
	if previous == nil {
		l.current = new(Config)
	}
	var c *Config
	if len(problems) == 0 {
		// After a syntax error, the values are not reliable.
		c = l.load(s.file, filepath.Dir(path), prompt, now)
	}
	return l.finish(c, s.variables)
}

// LoadFiles is LoadChanged with the keys of the current configuration: only the files that it names
// are read again.
func LoadFiles(current *Config, prompt func(string) ([]byte, error), now time.Time) (*Config, []Problem) {
	l := &loader{path: current.path, lines: current.Settings.lines, current: current, keepGone: true}
	c := l.load(current.Settings.file, filepath.Dir(current.path), prompt, now)
	return l.finish(c, current.Variables)
}

func (l *loader) finish(c *Config, variables []string) (*Config, []Problem) {
	slices.SortStableFunc(l.problems, func(a, b Problem) int { return cmp.Compare(a.Line, b.Line) })
	if Failed(l.problems) {
		if c != nil {
			l.problems = append(l.accountProblem(c.User), l.problems...)
		}
		return nil, l.problems
	}
	c.path, c.Variables = l.path, variables
	return c, l.problems
}

// settings are the keys from the file and the environment, with their lines.
type settings struct {
	file
	lines     map[string]int // see parse
	variables []string       // those that set a key
}

// readSettings reads the file at path, unless path is empty, and then the environment.
func readSettings(path string, environ []string) (s settings, problems []Problem) {
	s.file, s.lines = defaults(), make(map[string]int)
	if path != "" {
		text, err := read(path)
		if err != nil {
			return s, []Problem{{File: path, Line: 1, Text: err.Error()}}
		}
		s.file, s.lines, problems = parse(text)
		for i := range problems {
			problems[i].File = path
		}
	}
	var mistakes []Problem
	s.variables, mistakes = environment(&s.file, s.lines, environ)
	return s, append(problems, mistakes...)
}

// DefaultFile is the configuration file where none is named.
const DefaultFile = "/etc/pgwicket/pgwicket.yaml"

func read(path string) ([]byte, error) {
	hint := ""
	if path == DefaultFile {
		hint = "; name another file with --config"
	}
	st, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("cannot be read (%w); the account of pgwicket needs permission to read it", errors.Unwrap(err))
	case err != nil:
		return nil, fmt.Errorf("cannot be read (%w)%s", errors.Unwrap(err), hint)
	case !st.Mode().IsRegular():
		return nil, errors.New("is not a regular file" + hint)
	case st.Size() > maxSize:
		return nil, fmt.Errorf("is %d bytes long, too long for a configuration", st.Size())
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("cannot be read (%w); the account of pgwicket needs permission to read it", errors.Unwrap(err))
	}
	return bytes.TrimPrefix(text, []byte("\xef\xbb\xbf")), nil
}

// loader collects the problems of one Load.
type loader struct {
	path     string // empty without a file
	lines    map[string]int
	problems []Problem
	current  *Config // the zero Config at the start
	keepGone bool    // see LoadChanged
	client   func(tlsconfig.ClientOptions) (*tlsconfig.Client, []tlsconfig.Problem)
	server   func(section string, o tlsconfig.Options, current *tlsconfig.Server) *tlsconfig.Server
}

func (l *loader) add(warning bool, key, format string, args ...any) {
	p := Problem{File: l.path, Line: l.line(key), Key: key, Text: fmt.Sprintf(format, args...), Warning: warning}
	if p.Line == 0 {
		p.File = Variable(key)
	}
	l.problems = append(l.problems, p)
}

// line returns the line of a key, or the nearest line; 0 if the environment sets it or
// if there is no file.
func (l *loader) line(key string) int {
	if l.path == "" {
		return 0
	}
	return lineOf(l.lines, key)
}

func (l *loader) errorf(key, format string, args ...any) { l.add(false, key, format, args...) }
func (l *loader) warnf(key, format string, args ...any)  { l.add(true, key, format, args...) }

func (l *loader) load(f file, dir string, prompt func(string) ([]byte, error), now time.Time) *Config {
	c := &Config{
		TCPUserTimeout: time.Duration(f.Limits.TCPUserTimeout),
		DrainDelay:     time.Duration(f.Limits.DrainDelay),
		DrainTimeout:   time.Duration(f.Limits.DrainTimeout),
		LogFormat:      l.oneOf("log.format", f.Log.Format, "auto", "json", "text"),
		WatchFiles:     f.WatchFiles,
		ReusePort:      f.ReusePort,
		User:           f.User,
		UserLine:       l.line("user"),
		StateDir:       l.stateDir(dir, f.StateDir),
		AuditFile:      l.auditFile(dir, f.Audit),
		Landlock:       f.Landlock,
		RunsCommands:   f.TLS.PassphraseCommand != "" || f.Admin.TLS.PassphraseCommand != "",
	}
	c.Listen, c.ListenLines = l.listen(f.Listen, f.ReusePort)
	if err := c.LogLevel.UnmarshalText([]byte(l.oneOf("log.level", f.Log.Level, "debug", "info", "warn", "error"))); err != nil {
		c.LogLevel = slog.LevelInfo
	}
	f.paths(dir)
	c.Settings = &Settings{f, l.lines}
	f.TLS.KeyOwner = keyOwner(f.User)
	f.TLS.Account, f.Admin.TLS.Account, f.Admin.TLS.KeyOwner = f.User, f.User, f.TLS.KeyOwner
	f.TLS.KeepGone, f.Admin.TLS.KeepGone = l.keepGone, l.keepGone
	l.client = func(o tlsconfig.ClientOptions) (*tlsconfig.Client, []tlsconfig.Problem) {
		o.PassphraseCommand, o.KeyOwner, o.Account, o.MinSecurityBits = f.TLS.PassphraseCommand, f.TLS.KeyOwner, f.TLS.Account, f.TLS.MinSecurityBits
		return tlsconfig.LoadClient(o, prompt, now)
	}
	l.server = func(section string, o tlsconfig.Options, current *tlsconfig.Server) *tlsconfig.Server {
		server, problems := tlsconfig.Load(o, current, prompt, now)
		for _, p := range problems {
			l.add(p.Warning, section+"."+p.Key, "%s", p.Text)
		}
		return server
	}
	c.TLS = l.server("tls", f.TLS, l.current.TLS)
	c.Admin = l.admin(f.Admin, dir, c.TLS)
	l.checkOverlap(c.Listen, c.Admin.Address)
	c.Policy = &proxy.Policy{
		Networks:              l.networks(f.ACL),
		SourceRefusal:         l.sourceRefusal(f.ACL.Refusal),
		Proxies:               l.proxies(f.Listen),
		ProxyHeaderTimeout:    proxyHeaderTimeout,
		Rules:                 l.rules(f.ACL, c.Listen, f.groupUsers(), now),
		Recheck:               l.recheck("acl.on_recheck", f.ACL.OnRecheck),
		OnExpiry:              l.onExpiry(f.ACL),
		RecheckInterval:       time.Duration(f.ACL.RecheckInterval),
		KnownCancelsOnly:      l.oneOf("acl.cancel_requests", f.ACL.CancelRequests, "any", "known") == "known",
		StartupTimeout:        l.positive("limits.startup_timeout", f.Limits.StartupTimeout),
		AuthenticationTimeout: l.positive("limits.authentication_timeout", f.Limits.AuthenticationTimeout),
		Limits:                l.limits(f.Limits),
		MaxCancelRequests:     int(f.Limits.MaxCancelRequests),
		Recording:             l.recording(f),
	}
	c.Policy.Backend, c.Policy.Backends = l.backends(f)
	c.Groups = l.checkBackends(f, c.Policy)
	if c.TLS != nil {
		c.Policy.TLS, c.Policy.Verify = c.TLS.Config, verify(c.TLS)
		c.Policy.EndOnStaleCRL = c.TLS.EndOnStaleCRL
	}
	return c
}

// A client with two certificates of RSA keys and a post-quantum key share sends some
// 5 KiB; crypto/tls itself takes no certificates above 256 KiB.
const (
	minHandshakeBytes = 8 << 10
	maxHandshakeBytes = 256 << 10
)

func (l *loader) limits(f limits) proxy.Limits {
	if f.ConnectionRate > 0 && f.ConnectionBurst == 0 {
		l.errorf("limits.connection_burst", "must not be 0, or no client could connect; write how many connections may arrive at once")
	}
	if f.MaxHandshakeBytes < minHandshakeBytes || f.MaxHandshakeBytes > maxHandshakeBytes {
		l.errorf("limits.max_handshake_bytes", "must be from %d to %d", minHandshakeBytes, maxHandshakeBytes)
	}
	if f.MaxAuthFailures > 0 && f.AuthRefusal == 0 {
		l.warnf("limits.auth_refusal", "is 0, so no client is refused after limits.max_auth_failures; failures only delay the next attempt")
	}
	return proxy.Limits{
		Startups:       int(f.MaxStartups),
		HandshakeBytes: int(f.MaxHandshakeBytes),
		Sessions:       int(f.MaxConnections),
		PerSource:      int(f.MaxConnectionsPerSource),
		PerAccount:     int(f.MaxSessionsPerAccount),
		Rate:           float64(f.ConnectionRate),
		Burst:          int(f.ConnectionBurst),
		AuthFailures:   int(f.MaxAuthFailures),
		AuthRefusal:    time.Duration(f.AuthRefusal),

		IdleTimeout:       time.Duration(f.IdleTimeout),
		IdleInTransaction: time.Duration(f.IdleInTransactionTimeout),
		SessionLifetime:   time.Duration(f.SessionLifetime),
		UnfinishedTimeout: time.Duration(f.UnfinishedRequestTimeout),
	}
}

func (l *loader) listen(addresses []listen, shared bool) (out []string, lines []int) {
	if len(addresses) == 0 {
		l.errorf("listen", "is missing; list the addresses that clients connect to, like listen: [{address: \"10.0.0.5:5432\"}]")
	}
	for i, a := range addresses {
		key := fmt.Sprintf("listen[%d].address", i)
		addr := l.address(key, a.Address)
		switch {
		case addr == "":
		case slices.Contains(out, addr):
			l.errorf(key, "%s is listed twice", addr)
		default:
			if i := slices.IndexFunc(out, func(other string) bool { return overlap(addr, other) }); i >= 0 && !shared {
				l.errorf(key, "%s and %s overlap, so the system gives only one of them; remove one", addr, out[i])
			}
			out, lines = append(out, addr), append(lines, l.line(key))
			if ap, err := netip.ParseAddrPort(addr); err == nil && ap.Addr().IsUnspecified() {
				l.warnf(key, "%s listens on all networks of this machine; write the address that clients use", a.Address)
			}
		}
	}
	return out, lines
}

// overlap reports whether a connection can be to both of two addresses. An unspecified
// IPv6 address stands for those of IPv4, too.
func overlap(a, b string) bool {
	one, err1 := netip.ParseAddrPort(a)
	other, err2 := netip.ParseAddrPort(b)
	if err1 != nil || err2 != nil || one.Port() != other.Port() {
		return false
	}
	covers := func(a, b netip.Addr) bool { return a.IsUnspecified() && (a.Is6() || b.Is4()) }
	return one.Addr() == other.Addr() || covers(one.Addr(), other.Addr()) || covers(other.Addr(), one.Addr())
}

// checkOverlap refuses an admin address where clients connect.
func (l *loader) checkOverlap(addresses []string, admin string) {
	for _, a := range addresses {
		if overlap(a, admin) {
			l.errorf("admin.address", "%s is also an address in listen (%s); give it another port, such as 10432", admin, a)
		}
	}
}

// proxies returns the load balancers that send PROXY headers, by the address that the
// listener reports.
func (l *loader) proxies(addresses []listen) map[string]*acl.Networks {
	var proxies map[string]*acl.Networks
	for i, a := range addresses {
		key := fmt.Sprintf("listen[%d].proxy_protocol_from", i)
		from := l.prefixes(key, a.ProxyProtocolFrom, false)
		for _, p := range from {
			if p.Bits() == 0 {
				l.warnf(key, "%s allows every host to claim any client address; list the load balancers", p)
			}
		}
		addr, ok := addressOf(a.Address)
		if !ok || len(from) == 0 {
			continue
		}
		if proxies == nil {
			proxies = make(map[string]*acl.Networks)
		}
		networks := acl.NewNetworks(from, nil)
		proxies[addr.String()] = networks
		if addr.Addr() == netip.IPv4Unspecified() {
			// With IPv6, Go listens on both for 0.0.0.0.
			proxies[netip.AddrPortFrom(netip.IPv6Unspecified(), addr.Port()).String()] = networks
		}
	}
	return proxies
}

// address parses an IP address with a port. A name is refused: its addresses can
// change without a change of the configuration.
func (l *loader) address(key, s string) string {
	ap, ok := addressOf(s)
	if !ok {
		l.errorf(key, "%q is not an IP address with a port; write it like 10.0.0.5:5432 or [fd00::5]:5432", s)
		return ""
	}
	return ap.String()
}

func addressOf(s string) (addr netip.AddrPort, ok bool) {
	if rest, ok := strings.CutPrefix(s, "*:"); ok {
		s = "[::]:" + rest
	}
	ap, err := netip.ParseAddrPort(s)
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()), err == nil && ap.Port() != 0
}

func (l *loader) oneOf(key, value string, known ...string) string {
	if !slices.Contains(known, value) {
		l.errorf(key, "%q is not known; write one of %s", value, strings.Join(known, ", "))
	}
	return value
}

func (l *loader) positive(key string, d duration) time.Duration {
	if d == 0 {
		l.errorf(key, "must not be 0: a silent client could stay connected forever")
	}
	return time.Duration(d)
}

func (l *loader) networks(a access) *acl.Networks {
	if len(a.Allow) == 0 {
		l.warnf("acl.allow", "is empty, so no client can connect; list the networks of the clients, like [10.20.0.0/16]")
	}
	return acl.NewNetworks(l.prefixes("acl.allow", a.Allow, true), l.prefixes("acl.deny", a.Deny, false))
}

func (l *loader) prefixes(key string, texts []string, warnOpen bool) (out []netip.Prefix) {
	for i, text := range texts {
		key := fmt.Sprintf("%s[%d]", key, i)
		p, err := acl.ParsePrefix(text)
		if err != nil {
			l.errorf(key, "%s", err)
			continue
		}
		if warnOpen && p.Bits() == 0 {
			l.warnf(key, "%s allows every address; list the networks of the clients", text)
		}
		out = append(out, p)
	}
	return out
}

func (l *loader) sourceRefusal(s string) policy.SourceRefusal {
	known := []string{policy.Close: "close", policy.Reset: "reset", policy.Explain: "explain"}
	return policy.SourceRefusal(max(slices.Index(known, l.oneOf("acl.refusal", s, known...)), 0))
}

// keyOwner returns the user id of the account in user, because the gate reads the keys
// as this account at every reload; 0 if there is none. Only root can become it, but
// anybody may check a configuration.
func keyOwner(account string) int {
	if account == "" {
		return 0
	}
	u, err := user.Lookup(account)
	if err != nil {
		return 0
	}
	uid, _ := strconv.Atoi(u.Uid)
	return uid
}

// verify returns what judges handshakes for proxy.
func verify(s *tlsconfig.Server) func(tls.ConnectionState, [][]byte, time.Time) ([][]byte, error) {
	return func(state tls.ConnectionState, sent [][]byte, at time.Time) ([][]byte, error) {
		chain, err := s.Verify(state, sent, at)
		if err != nil {
			return nil, Refusal(err)
		}
		return chain, nil
	}
}

// Refusal translates an error of tlsconfig's Server.Verify into a refusal of proxy, which has the words for the client.
func Refusal(err error) *proxy.Refusal {
	var refused *tlsconfig.VerifyError
	if !errors.As(err, &refused) {
		return &proxy.Refusal{Outcome: outcome.CertInvalid, Detail: err.Error()}
	}
	return outcome.RefuseCertificate(outcomeOf(refused.Reason), refused.CA, refused.Date, refused.Detail)
}

// outcomes are the outcomes of the reasons of tlsconfig.
var outcomes = map[tlsconfig.Reason]proxy.Outcome{
	tlsconfig.ReasonVersion:        outcome.TLSVersion,
	tlsconfig.ReasonCipher:         outcome.TLSCipher,
	tlsconfig.ReasonMissing:        outcome.CertMissing,
	tlsconfig.ReasonExpired:        outcome.CertExpired,
	tlsconfig.ReasonNotYetValid:    outcome.CertNotYetValid,
	tlsconfig.ReasonRevoked:        outcome.CertRevoked,
	tlsconfig.ReasonUnknownCA:      outcome.CertUnknownCA,
	tlsconfig.ReasonWrongPurpose:   outcome.CertWrongPurpose,
	tlsconfig.ReasonInvalid:        outcome.CertInvalid,
	tlsconfig.ReasonGroup:          outcome.TLSGroup,
	tlsconfig.ReasonNameConstraint: outcome.CertNameConstraint,
	tlsconfig.ReasonWeakKey:        outcome.CertWeakKey,

	tlsconfig.ReasonCRLMissing: outcome.CRLMissing,
	tlsconfig.ReasonCRLStale:   outcome.CRLStale,
}

func outcomeOf(r tlsconfig.Reason) proxy.Outcome {
	if o, ok := outcomes[r]; ok {
		return o
	}
	return outcome.CertInvalid
}
