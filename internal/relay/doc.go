// Package relay moves the bytes of admitted sessions between a client's TLS
// connection and a backend's connection, both ways, until both directions have
// ended.
//
// On Linux a Relay is a few event loops over epoll; elsewhere it is two
// goroutines for each session, which are also the model that the tests compare
// the loops with. Both promise the same:
//
//   - No byte is lost, changed or reordered. A direction that ends in order is
//     passed on as a half-close; one that is cut ends both.
//   - An idle session holds no buffer, and a side that does not read stops the
//     other side from being read.
//   - Terminate sends the client a message between two messages of the backend,
//     and only there.
//
// The package knows no policy. It reports what ended a session as a Cause, and
// its caller decides what that means. It imports internal/pgwire, which follows
// the messages of both sides, internal/tlsrecord, which opens and seals the records,
// and nothing else of the module.
package relay
