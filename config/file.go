package config

import (
	"time"

	"pgwicket/acl"
	"pgwicket/proxy"
	"pgwicket/tlsconfig"
)

// file is the configuration file. config.example.yaml explains every key; a test
// compares the two.
type file struct {
	Listen  []listen          `yaml:"listen"`
	TLS     tlsconfig.Options `yaml:"tls"`
	ACL     access            `yaml:"acl"`
	Backend backend           `yaml:"backend"`
	// Backends are the ones that rules name.
	Backends []namedBackend `yaml:"backends"`
	Limits   limits         `yaml:"limits"`
	Admin    admin          `yaml:"admin"`
	Log      logging        `yaml:"log"`
	Audit    auditing       `yaml:"audit"`

	WatchFiles bool   `yaml:"watch_files"`
	ReusePort  bool   `yaml:"reuse_port"`
	User       string `yaml:"user"`
	StateDir   string `yaml:"state_dir"`
	Landlock   bool   `yaml:"landlock"`
}

type listen struct {
	Address           string   `yaml:"address"`
	ProxyProtocolFrom []string `yaml:"proxy_protocol_from"`
}

type access struct {
	Allow   []string `yaml:"allow"`
	Deny    []string `yaml:"deny"`
	Refusal string   `yaml:"refusal"`

	Rules      []acl.RuleOptions `yaml:"rules"`
	Superusers []string          `yaml:"superusers"`

	RecheckInterval duration `yaml:"recheck_interval"`
	OnRecheck       string   `yaml:"on_recheck"`
	OnExpiry        string   `yaml:"on_expiry"`
	CancelRequests  string   `yaml:"cancel_requests"`
}

// namedBackend is a backend that rules name.
type namedBackend struct {
	Name    string `yaml:"name"`
	backend `yaml:",inline"`
}

type backend struct {
	Host           string   `yaml:"host"`
	Port           ports    `yaml:"port"`
	ConnectTimeout duration `yaml:"connect_timeout"`
	SSLMode        string   `yaml:"sslmode"`
	SSLNegotiation string   `yaml:"sslnegotiation"`
	SSLRootCert    string   `yaml:"sslrootcert"`
	SSLCRL         string   `yaml:"sslcrl"`
	SSLCRLDir      string   `yaml:"sslcrldir"`
	SSLCert        string   `yaml:"sslcert"`
	SSLKey         string   `yaml:"sslkey"`
	ClientInfo     bool     `yaml:"client_info"`
	Groups         groups   `yaml:"groups"`
}

// groups is how the members of roles are asked for.
type groups struct {
	User         string   `yaml:"user"`
	Database     string   `yaml:"database"`
	PasswordFile string   `yaml:"password_file"`
	Refresh      duration `yaml:"refresh"`
	MaxAge       duration `yaml:"max_age"`
}

type limits struct {
	StartupTimeout        duration `yaml:"startup_timeout"`
	AuthenticationTimeout duration `yaml:"authentication_timeout"`
	MaxCancelRequests     count    `yaml:"max_cancel_requests"`

	MaxStartups             count    `yaml:"max_startups"`
	MaxHandshakeBytes       count    `yaml:"max_handshake_bytes"`
	MaxConnections          count    `yaml:"max_connections"`
	MaxConnectionsPerSource count    `yaml:"max_connections_per_source"`
	MaxSessionsPerAccount   count    `yaml:"max_sessions_per_account"`
	ConnectionRate          count    `yaml:"connection_rate"`
	ConnectionBurst         count    `yaml:"connection_burst"`
	MaxAuthFailures         count    `yaml:"max_auth_failures"`
	AuthRefusal             duration `yaml:"auth_refusal"`

	IdleTimeout              duration `yaml:"idle_timeout"`
	IdleInTransactionTimeout duration `yaml:"idle_in_transaction_timeout"`
	SessionLifetime          duration `yaml:"session_lifetime"`
	UnfinishedRequestTimeout duration `yaml:"unfinished_request_timeout"`

	TCPUserTimeout duration `yaml:"tcp_user_timeout"`
	DrainDelay     duration `yaml:"drain_delay"`
	DrainTimeout   duration `yaml:"drain_timeout"`
}

type admin struct {
	Address     string            `yaml:"address"`
	TLS         tlsconfig.Options `yaml:"tls"` // in use if any key is set
	Unprotected bool              `yaml:"unprotected"`
	Hosts       []string          `yaml:"hosts"`
	Socket      string            `yaml:"socket"`
	ShowClients bool              `yaml:"show_clients"`
}

type logging struct {
	Level       string `yaml:"level"`
	Format      string `yaml:"format"`
	Sessions    string `yaml:"sessions"`
	RefusalRate count  `yaml:"refusal_rate"`
}

type auditing struct {
	File     string `yaml:"file"`
	Required bool   `yaml:"required"`
}

// defaults returns safe defaults: no client is admitted, and the metrics are on the
// loopback interface only.
func defaults() file {
	return file{
		ACL: access{
			Refusal:         "close",
			Superusers:      []string{"postgres"},
			RecheckInterval: duration(30 * time.Second),
			OnRecheck:       "immediate",
			CancelRequests:  "any",
		},
		Backend: backend{
			Host: "/run/postgresql", Port: "5432", ConnectTimeout: duration(5 * time.Second),
			Groups: groups{Database: "postgres", Refresh: duration(30 * time.Second), MaxAge: duration(5 * time.Minute)},
		},
		Limits: limits{
			StartupTimeout:        duration(10 * time.Second),
			AuthenticationTimeout: duration(65 * time.Second),
			MaxCancelRequests:     64,

			MaxStartups:             1000,
			MaxHandshakeBytes:       proxy.DefaultHandshakeBytes,
			MaxConnections:          10_000,
			MaxConnectionsPerSource: 1000,
			ConnectionRate:          500,
			ConnectionBurst:         1000,
			MaxAuthFailures:         10,
			AuthRefusal:             duration(time.Minute),

			UnfinishedRequestTimeout: duration(time.Hour),

			TCPUserTimeout: duration(5 * time.Minute),
			DrainTimeout:   duration(30 * time.Second),
		},
		Admin: admin{Address: "127.0.0.1:10432"},
		Log:   logging{Level: "info", Format: "auto", Sessions: "both", RefusalRate: 50},

		WatchFiles: true,
		Landlock:   true,
	}
}
