// Package acl decides who may connect. It has data and methods only: no I/O, no
// clock, no logging.
//
// There are two decisions, and both refuse by default. [Networks] is the source
// allowlist, which judges an address before any byte is read. [Rules] is an ordered
// list like pg_hba.conf, which judges a [Request]: the source, listener, user,
// database, kind of replication, server name and client certificate. The first rule
// that matches decides.
//
// [IdentityOf] reads the names in a verified client certificate. It drops names that
// two programs could read differently, so a rule never matches them.
//
// All types are immutable after construction and safe for concurrent use.
package acl
