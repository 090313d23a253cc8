package doctor

// checkLog checks log_connections, a list in release 18 and a boolean before.
func (s *server) checkLog() []Finding {
	switch v := s.settings["log_connections"]; v {
	case "", "off", "false", "no", "0":
		reason := "is off: a session that bypasses the gate leaves no trace"
		if s.alone {
			reason = "is off: sessions leave no trace"
		}
		return []Finding{finding(Warn, "log_connections", reason, s.setting("log_connections", "on"))}
	}
	if s.alone {
		return []Finding{pass("PostgreSQL logs its connections")}
	}
	return []Finding{pass("PostgreSQL logs its connections, which can be compared with the log of the gate")}
}
