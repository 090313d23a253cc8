// Package tlsconfig turns files and names into a ready TLS server or client, and judges the handshakes of the server.
//
// Load makes a Server from the options of the tls sections. They have PostgreSQL's names and meaning
// (ssl_min_protocol_version, ssl_ciphers, ssl_groups, ssl_ca_file, ssl_crl_file, ssl_crl_dir, ssl_passphrase_command) as
// far as crypto/tls allows, and Load explains what it does not allow. There are three differences to OpenSSL:
//
//   - ciphers is one list of suites for TLS 1.2 and TLS 1.3. A suite that is not in it is not negotiated.
//   - The order of ciphers has a meaning for TLS 1.3 only, and there for the whole process (FixTLS13). For TLS 1.2 and for
//     groups, crypto/tls has its own order.
//   - The certificate of a client is judged after the handshake, by Server.Verify, so that the client can be told in
//     PostgreSQL's protocol why it is refused. The handshake only proves that the client has the key.
//
// Verify returns a Reason and a detail for the log. What clients are told is decided by the caller.
//
// LoadClient makes a Client, which is how pgwicket connects to a PostgreSQL server, from libpq's parameters: sslmode,
// sslrootcert, sslcrl, sslcrldir, sslcert and sslkey. It verifies servers as libpq does.
//
// Revocation lists are read from files here, and parsed, verified and looked up by internal/crl.
package tlsconfig
