package gate

import (
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Metrics are the values of /metrics by name, with labels as they stand there.
type Metrics map[string]float64

// Sum adds up all series of a name.
func (m Metrics) Sum(name string) (total float64) {
	for key, v := range m {
		if key == name || strings.HasPrefix(key, name+"{") {
			total += v
		}
	}
	return total
}

// Unaccounted is how many connections are counted as accepted and in no other
// state. It is 0 except for the moment in which a connection changes its state.
func (m Metrics) Unaccounted() float64 {
	return m.Sum("pgwicket_connections_accepted_total") - m.Sum("pgwicket_connections_refused_total") - m.Sum("pgwicket_cancel_requests_total") -
		m.Sum("pgwicket_sessions_ended_total") - m["pgwicket_connections_starting"] - m["pgwicket_sessions_open"]
}

// Metrics scrapes the gate.
func (g *Gate) Metrics() (Metrics, error) {
	body, err := g.Get("/metrics")
	if err != nil {
		return nil, err
	}
	return parseMetrics(body), nil
}

func parseMetrics(text string) Metrics {
	m := make(Metrics)
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		i := strings.LastIndexByte(line, ' ')
		if i < 0 || line[0] == '#' {
			continue
		}
		if v, err := strconv.ParseFloat(line[i+1:], 64); err == nil {
			m[line[:i]] = v
		}
	}
	return m
}

// Get returns what the admin address answers a path with; anything but 200 is an
// error. Each call opens a connection and closes it, so that the gate's
// descriptors can be counted.
func (g *Gate) Get(path string) (string, error) {
	c := http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	r, err := c.Get("http://" + g.Admin + path)
	if err != nil {
		return "", err
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err == nil && r.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", path, r.Status)
	}
	return string(body), err
}
