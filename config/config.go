// Package config turns the configuration file into values that need no further
// check: the policy that a server decides by, and what the command needs to
// start it. It is the only package that knows YAML.
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
	"pgwicket/proxy"
	"pgwicket/tlsconfig"
)

// maxSize holds some hundred thousand networks, and is far below what would hurt.
const maxSize = 16 << 20

// proxyHeaderTimeout is generous: a load balancer sends its header with the
// connection.
const proxyHeaderTimeout = 5 * time.Second

// Config is a valid configuration with all the files it names loaded.
type Config struct {
	Listen         []string // addresses, as net.Listen takes them
	Policy         *proxy.Policy
	TLS            *tlsconfig.Server
	TCPUserTimeout time.Duration // 0 leaves it to the system
	DrainDelay     time.Duration
	DrainTimeout   time.Duration
	Admin          Admin
	LogLevel       slog.Level
	LogFormat      string // auto, json or text
	WatchFiles     bool
	ReusePort      bool   // other processes may listen on the addresses, too
	User           string // the account to become when started as root; empty: none
	UserLine       int    // where the file says so, or its first; 0: not in the file
	Landlock       bool
	RunsCommands   bool // at each load, for the passphrases of keys

	// Variables of the environment that set keys, by their names.
	Variables []string

	path string
}

// At names the line of a rule in the configuration file, or the variable that has
// it in place of one.
func (c *Config) At(line int) string { return at(c.path, line, "acl.rules") }

// at names where a key stands. Nothing stands in line 0 of a file, but in the
// environment.
func at(path string, line int, key string) string {
	if line == 0 {
		return Variable(key)
	}
	return fmt.Sprintf("%s:%d", path, line)
}

// Problem is one mistake in the configuration or in a file that it names.
type Problem struct {
	File    string // or the variable of the environment
	Line    int    // 0 where it is a variable
	Key     string // empty where the mistake is in the form of the file or the variable
	Text    string // what is wrong and what to do, in one line
	Warning bool   // the gate works all the same
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

// Load reads the configuration at path, over it the environment, and every file
// that they name, and reports all mistakes at once, in the order of their lines.
// The Config is nil if any of them is more than a warning; nothing is changed in
// the process. Without a path, all is from the environment.
//
// previous is the configuration in force, which revocation lists must not fall
// behind; nil at the start. prompt asks a person for the passphrase of a key;
// nil means that nobody is there.
func Load(path string, previous *Config, prompt func(string) ([]byte, error), now time.Time) (*Config, []Problem) {
	s, problems := readSettings(path, os.Environ())
	l := &loading{path: path, lines: s.lines, problems: problems, inForce: previous}
	if previous == nil {
		l.inForce = new(Config)
	}
	var c *Config
	if len(problems) == 0 {
		// With the file's form in doubt, its values would be too.
		c = l.load(s.file, filepath.Dir(path), prompt, now)
	}
	slices.SortStableFunc(l.problems, func(a, b Problem) int { return cmp.Compare(a.Line, b.Line) })
	if Failed(l.problems) {
		return nil, l.problems
	}
	c.path, c.Variables = path, s.variables
	return c, l.problems
}

// settings are what the file and the environment say, and where.
type settings struct {
	file
	lines     map[string]int // see parse
	variables []string       // that are set
}

// readSettings reads the file at path, unless that is empty, and over it the
// environment.
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

func read(path string) ([]byte, error) {
	st, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("cannot be read (%w); the account that pgwicket runs under must be allowed to", errors.Unwrap(err))
	case err != nil:
		return nil, fmt.Errorf("cannot be read (%w); name the file with --config", errors.Unwrap(err))
	case !st.Mode().IsRegular():
		return nil, errors.New("is not a file; name the configuration file with --config")
	case st.Size() > maxSize:
		return nil, fmt.Errorf("is %d bytes long, which no configuration is", st.Size())
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("cannot be read (%w); the account that pgwicket runs under must be allowed to", errors.Unwrap(err))
	}
	return bytes.TrimPrefix(text, []byte("\xef\xbb\xbf")), nil
}

// loading gathers the problems of one Load.
type loading struct {
	path     string // empty: there is no file
	lines    map[string]int
	problems []Problem
	inForce  *Config // empty at the start
	client   func(tlsconfig.ClientOptions) (*tlsconfig.Client, []tlsconfig.Problem)
	server   func(section string, o tlsconfig.Options, inForce *tlsconfig.Server) *tlsconfig.Server
}

func (l *loading) add(warning bool, key, format string, args ...any) {
	p := Problem{File: l.path, Line: l.line(key), Key: key, Text: fmt.Sprintf(format, args...), Warning: warning}
	if p.Line == 0 {
		p.File = Variable(key)
	}
	l.problems = append(l.problems, p)
}

// line is that of a key, or the nearest to it; 0 where it stands in the
// environment, or would have to.
func (l *loading) line(key string) int {
	if l.path == "" {
		return 0
	}
	return lineOf(l.lines, key)
}

func (l *loading) errorf(key, format string, args ...any) { l.add(false, key, format, args...) }
func (l *loading) warnf(key, format string, args ...any)  { l.add(true, key, format, args...) }

func (l *loading) load(f file, dir string, prompt func(string) ([]byte, error), now time.Time) *Config {
	c := &Config{
		Listen:         l.listen(f.Listen),
		TCPUserTimeout: time.Duration(f.Limits.TCPUserTimeout),
		DrainDelay:     time.Duration(f.Limits.DrainDelay),
		DrainTimeout:   time.Duration(f.Limits.DrainTimeout),
		LogFormat:      l.oneOf("log.format", f.Log.Format, "auto", "json", "text"),
		WatchFiles:     f.WatchFiles,
		ReusePort:      f.ReusePort,
		User:           f.User,
		UserLine:       l.line("user"),
		Landlock:       f.Landlock,
		RunsCommands:   f.TLS.PassphraseCommand != "" || f.Admin.TLS.PassphraseCommand != "",
	}
	if err := c.LogLevel.UnmarshalText([]byte(l.oneOf("log.level", f.Log.Level, "debug", "info", "warn", "error"))); err != nil {
		c.LogLevel = slog.LevelInfo
	}
	f.paths(dir)
	f.TLS.KeyOwner = keyOwner(f.User)
	f.Admin.TLS.KeyOwner = f.TLS.KeyOwner
	l.client = func(o tlsconfig.ClientOptions) (*tlsconfig.Client, []tlsconfig.Problem) {
		o.PassphraseCommand, o.KeyOwner = f.TLS.PassphraseCommand, f.TLS.KeyOwner
		return tlsconfig.LoadClient(o, prompt, now)
	}
	l.server = func(section string, o tlsconfig.Options, inForce *tlsconfig.Server) *tlsconfig.Server {
		server, problems := tlsconfig.Load(o, inForce, prompt, now)
		for _, p := range problems {
			l.add(p.Warning, section+"."+p.Key, "%s", p.Text)
		}
		return server
	}
	c.TLS = l.server("tls", f.TLS, l.inForce.TLS)
	c.Admin = l.admin(f.Admin, dir, c.TLS)
	c.Policy = &proxy.Policy{
		Networks:           l.networks(f.ACL),
		SourceRefusal:      l.sourceRefusal(f.ACL.Refusal),
		Proxies:            l.proxies(f.Listen),
		ProxyHeaderTimeout: proxyHeaderTimeout,
		Rules:              l.rules(f.ACL, c.Listen),
		Recheck:            l.recheck(f.ACL.OnRecheck),
		RecheckInterval:    time.Duration(f.ACL.RecheckInterval),
		KnownCancelsOnly:   l.oneOf("acl.cancel_requests", f.ACL.CancelRequests, "any", "known") == "known",
		StartupTimeout:     l.positive("limits.startup_timeout", f.Limits.StartupTimeout),
		Limits:             l.limits(f.Limits),
		MaxCancelRequests:  int(f.Limits.MaxCancelRequests),
	}
	c.Policy.Backend, c.Policy.Backends = l.backends(f)
	l.destinations(f.ACL.Rules, c.Policy)
	if c.TLS != nil {
		c.Policy.TLS, c.Policy.Verify = c.TLS.Config, verify(c.TLS)
		c.Policy.EndOnStaleCRL = c.TLS.EndOnStaleCRL
	}
	return c
}

func (l *loading) limits(f limits) proxy.Limits {
	if f.ConnectionRate > 0 && f.ConnectionBurst == 0 {
		l.errorf("limits.connection_burst", "must not be 0, or nobody could come in; write how many connections may come at once")
	}
	if f.MaxAuthFailures > 0 && f.AuthRefusal == 0 {
		l.warnf("limits.auth_refusal", "is 0, so nobody is refused after limits.max_auth_failures; failures only make the next attempt wait")
	}
	return proxy.Limits{
		Connections:  int(f.MaxConnections),
		PerSource:    int(f.MaxConnectionsPerSource),
		PerAccount:   int(f.MaxSessionsPerAccount),
		Rate:         float64(f.ConnectionRate),
		Burst:        int(f.ConnectionBurst),
		AuthFailures: int(f.MaxAuthFailures),
		AuthRefusal:  time.Duration(f.AuthRefusal),

		IdleTimeout:     time.Duration(f.IdleTimeout),
		SessionLifetime: time.Duration(f.SessionLifetime),
	}
}

func (l *loading) listen(addresses []listen) (out []string) {
	if len(addresses) == 0 {
		l.errorf("listen", "is missing; name the addresses that clients connect to, like «listen: [{address: \"10.0.0.5:5432\"}]»")
	}
	for i, a := range addresses {
		key := fmt.Sprintf("listen[%d].address", i)
		addr := l.address(key, a.Address)
		switch {
		case addr == "":
		case slices.Contains(out, addr):
			l.errorf(key, "%s is listed twice", addr)
		default:
			out = append(out, addr)
			if ap, err := netip.ParseAddrPort(addr); err == nil && ap.Addr().IsUnspecified() {
				l.warnf(key, "%s listens on every network of this machine; name the one address that clients use", a.Address)
			}
		}
	}
	return out
}

// proxies reads who may say for whom it speaks, by the address that a listener
// gives as its own.
func (l *loading) proxies(addresses []listen) map[string]*acl.Networks {
	var proxies map[string]*acl.Networks
	for i, a := range addresses {
		key := fmt.Sprintf("listen[%d].proxy_protocol_from", i)
		from := l.prefixes(key, a.ProxyProtocolFrom, false)
		for _, p := range from {
			if p.Bits() == 0 {
				l.warnf(key, "%s lets everybody claim any address; list the load balancers", p)
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
			// Where there is IPv6, Go listens on both.
			proxies[netip.AddrPortFrom(netip.IPv6Unspecified(), addr.Port()).String()] = networks
		}
	}
	return proxies
}

// address reads an IP address with a port. A name is refused: what it means
// can change without the configuration.
func (l *loading) address(key, s string) string {
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

func (l *loading) oneOf(key, value string, known ...string) string {
	if !slices.Contains(known, value) {
		l.errorf(key, "%q is not known; write one of %s", value, strings.Join(known, ", "))
	}
	return value
}

func (l *loading) positive(key string, d duration) time.Duration {
	if d == 0 {
		l.errorf(key, "must not be 0: without it a silent client could stay for ever")
	}
	return time.Duration(d)
}

func (l *loading) networks(a access) *acl.Networks {
	if len(a.Allow) == 0 {
		l.warnf("acl.allow", "is empty, so nobody can connect; list the networks of the clients, like [10.20.0.0/16]")
	}
	return acl.NewNetworks(l.prefixes("acl.allow", a.Allow, true), l.prefixes("acl.deny", a.Deny, false))
}

func (l *loading) prefixes(key string, texts []string, warnOpen bool) (out []netip.Prefix) {
	for i, text := range texts {
		key := fmt.Sprintf("%s[%d]", key, i)
		p, err := acl.ParsePrefix(text)
		if err != nil {
			l.errorf(key, "%s", err)
			continue
		}
		if warnOpen && p.Bits() == 0 {
			l.warnf(key, "%s allows every address there is; list the networks of the clients", text)
		}
		out = append(out, p)
	}
	return out
}

func (l *loading) sourceRefusal(s string) proxy.SourceRefusal {
	known := []string{proxy.Close: "close", proxy.Reset: "reset", proxy.Explain: "explain"}
	return proxy.SourceRefusal(max(slices.Index(known, l.oneOf("acl.refusal", s, known...)), 0))
}

// keyOwner is the account that root is about to become, whose keys the gate will
// read at every reload; 0 where it becomes none.
func keyOwner(account string) int {
	if account == "" || os.Geteuid() != 0 {
		return 0
	}
	u, err := user.Lookup(account)
	if err != nil {
		return 0
	}
	uid, _ := strconv.Atoi(u.Uid)
	return uid
}

// verify speaks tlsconfig's verdicts in the words of proxy.
func verify(s *tlsconfig.Server) func(tls.ConnectionState, time.Time) error {
	return func(state tls.ConnectionState, at time.Time) error {
		err := s.Verify(state, at)
		var cert *tlsconfig.CertificateError
		if errors.As(err, &cert) {
			return &proxy.Refusal{Outcome: outcomeOf(cert.Reason), Public: cert.Public, Detail: cert.Detail}
		}
		var outside *tlsconfig.PolicyError
		if errors.As(err, &outside) && outside.Version {
			return &proxy.Refusal{Outcome: proxy.TLSVersion, Detail: err.Error()}
		}
		if err != nil {
			return &proxy.Refusal{Outcome: proxy.TLSCipher, Detail: err.Error()}
		}
		return nil
	}
}

// outcomes are the verdicts on client certificates, in the words of proxy.
var outcomes = map[tlsconfig.Reason]proxy.Outcome{
	tlsconfig.ReasonMissing:      proxy.CertMissing,
	tlsconfig.ReasonExpired:      proxy.CertExpired,
	tlsconfig.ReasonNotYetValid:  proxy.CertNotYetValid,
	tlsconfig.ReasonRevoked:      proxy.CertRevoked,
	tlsconfig.ReasonUnknownCA:    proxy.CertUnknownCA,
	tlsconfig.ReasonWrongPurpose: proxy.CertWrongPurpose,
	tlsconfig.ReasonInvalid:      proxy.CertInvalid,
	tlsconfig.ReasonCRLMissing:   proxy.CRLMissing,
	tlsconfig.ReasonCRLStale:     proxy.CRLStale,
}

func outcomeOf(r tlsconfig.Reason) proxy.Outcome {
	if o, ok := outcomes[r]; ok {
		return o
	}
	return proxy.CertInvalid
}
