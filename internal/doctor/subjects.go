package doctor

import "pgwicket/internal/doctor/report"

// subject is what all findings of a check have in common: the heading of
// docs/hardening.md, the number in the CIS PostgreSQL 17 Benchmark where there is
// one, and why it matters.
type subject struct {
	heading report.Heading
	cis     string
	why     string
}

// subjectOf returns the subject of a check of this package.
func subjectOf(name string) subject {
	for _, table := range []map[string]subject{gateSubjects(), tlsSubjects(), serverSubjects()} {
		if s, ok := table[name]; ok {
			return s
		}
	}
	return subject{}
}

func gateSubjects() map[string]subject {
	return map[string]subject{
		"check":     {report.Settings, "", "The gate starts with this configuration, but it may not do what was meant."},
		"listen":    {report.TCP, "", "An address that no client uses is only useful to others."},
		"allowlist": {report.Firewall, "", "Every network that is allowed can try passwords and certificates."},
		"firewall":  {report.Firewall, "", "Without rules in the kernel every stranger costs the gate a connection."},
		"rules":     {report.Roles, "", "A rule that never decides hides who is really admitted."},
		"recheck":   {report.Transport, "", "A revoked certificate should end its sessions."},
		"backend":   {report.Transport, "", "Anybody between the gate and PostgreSQL can read and change everything that is in clear."},
		"admin":     {report.TCP, "", "The status page names users, databases and addresses."},
		"user":      {report.Settings, "", "A fault in a process of root is a fault in the whole machine."},
		"groups":    {report.Roles, "", "A rule for the members of a role matches nobody while they are not known."},
		"account":   {report.Settings, "", "A reload or the next session fails."},
		"landlock":  {report.Settings, "", "Landlock bounds what a fault in the gate can reach."},
	}
}

func tlsSubjects() map[string]subject {
	return map[string]subject{
		"passphrase":           {report.Physical, "", "A copy of the disk is a copy of the key."},
		"key_file":             {report.Physical, "", "An account that reads the key can act as this server."},
		"certificate_strength": {report.Transport, "", "A weak key or signature can be forged."},
		"certificate_names":    {report.Transport, "", "Clients with sslmode=verify-full cannot connect."},
		"certificate_days":     {report.Transport, "", "Clients refuse a certificate that has ended."},
		"certificate_chain":    {report.Transport, "", "Clients that have only the root cannot build the chain."},
		"client_cert":          {report.Transport, "", "A password can be guessed and passed on; the key of a certificate cannot be guessed."},
		"crl":                  {report.Transport, "", "Without a current list a stolen certificate stays valid."},
		"weakest_handshake":    {report.Transport, "6.10", "An attacker on the way can choose the weakest handshake that both sides accept."},
		"session":              {report.Transport, "", "No application can connect, whatever the other checks find."},
		"served_certificate":   {report.Transport, "", "The gate serves what it has loaded, not what lies on the disk."},
	}
}

func serverSubjects() map[string]subject {
	return map[string]subject{
		"examined":            {report.Settings, "", "What is not examined is not known to be right."},
		"unix_socket":         {report.Sockets, "", "The directory of a socket is its only access control besides pg_hba.conf."},
		"backend_tls":         {report.Transport, "6.8", "Whatever clients send to the gate goes on over this connection."},
		"backend_firewall":    {report.Firewall, "", "Who reaches the port of PostgreSQL can try passwords without the gate."},
		"listen_addresses":    {report.TCP, "5.2", "An address that no client needs is only useful to others."},
		"pg_hba_network":      {report.TCP, "5.4", "Each network that a line admits can try passwords, and what is sent in clear can be read on the way."},
		"pg_hba_trust":        {report.Authentication, "5.3, 5.4", "With trust the name of a role is all that it takes."},
		"pg_hba_method":       {report.Authentication, "5.3, 5.4", "A method is as strong as what it sends over the network and keeps on the disk."},
		"pg_hba_shadowed":     {report.Authentication, "5.3, 5.4", "The first line that matches decides, so the file does not say what happens."},
		"pg_hba_helpers":      {report.Authentication, "5.4", "PostgreSQL sees the password itself, and passes it on."},
		"pg_ident":            {report.Authentication, "5.3", "A superuser can read and run everything as the account of PostgreSQL."},
		"superusers":          {report.Roles, "4.3", "A superuser can read and run everything as the account of PostgreSQL."},
		"without_password":    {report.Authentication, "5.3", "Anybody who reaches the server can log in as these roles."},
		"password_encryption": {report.Authentication, "", "MD5 hashes can be used to log in, and are guessed fast."},
		"ssl":                 {report.Transport, "6.8", "Anybody on the way can read and change everything that is in clear."},
		"log_connections":     {report.Log, "3.1.20", "Who was connected is the first question after an incident."},
	}
}
