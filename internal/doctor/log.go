package doctor

// checkLog checks log_connections, a list in release 18 and a boolean before.
func (s *server) checkLog() []Finding {
	switch v := s.settings["log_connections"]; v {
	case "", "off", "false", "no", "0":
		return []Finding{finding(Warn, "log_connections", "is off: a session that bypasses the gate leaves no trace", "log_connections = on")}
	}
	return []Finding{pass("PostgreSQL logs its connections, which can be compared with the log of the gate")}
}
