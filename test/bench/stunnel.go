package main

import "pgwicket/test/gate"

func stunnel() contender {
	return contender{
		id: "stunnel", title: "stunnel",
		about:   "`protocol = pgsql`, no tickets, no session cache, no log, `TIMEOUTclose = 0`",
		program: "stunnel", pkg: "stunnel4",
		version: func(*lab) string { return firstLine(program("stunnel"), "-version") },
		start: func(_ *lab, s setting) (*gate.Process, error) {
			config, err := s.render("stunnel.conf")
			if err != nil {
				return nil, err
			}
			return s.launch(nil, program("stunnel"), config)
		},
	}
}
