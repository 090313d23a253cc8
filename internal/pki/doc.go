// Package pki is a small certificate authority for one team: a root, an intermediate that
// issues certificates for servers and clients, and their revocation lists.
//
// # The directory
//
// It has the layout of "openssl ca" and easy-rsa, which can go on with it at any time:
//
//	ca.crt  private/ca.key  index.txt  index.txt.attr  serial  crlnumber  newcerts/
//	crl.pem openssl.cnf     the intermediate, which issues
//	root/                   the same files of the root; its key may be elsewhere
//	issued/NAME.crt         what was issued last under a name: certificate and intermediate
//	private/NAME.key        its key, unless it was made elsewhere
//	root.crt                the certificates of both, for ca_file and for sslrootcert of libpq
//	root.crl                the lists of both, for crl_file
//	names                   the name that each serial number was issued under
//	publish                 further files that hold the lists, one absolute path a line
//	pending/                a certificate that is being issued
//
// Private files have mode 0600 and directories 0700.
//
// # What an interrupted command leaves
//
// A certificate exists from the moment when index.txt names it. Before that its files are
// in pending/SERIAL, and the next command removes them; after that the next command
// moves them to their places. A revocation is in index.txt before it is in a list, and
// [CA.Unlisted] reports the difference. Each file is replaced as a whole. One process
// at a time has the directory; others fail.
package pki
