package proxy

import "pgwicket/internal/backend"

// Backend is where admitted sessions go: to the first of its hosts that takes the
// connection.
type Backend = backend.Backend

// Host is one address at which PostgreSQL listens.
type Host = backend.Host
