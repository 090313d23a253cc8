package metrics_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"

	"pgwicket/metrics"
)

// A set counts each connection once at its start and once at its end.
func ExampleSet() {
	set := metrics.New("v1.2.3")
	set.Expect(metrics.Outcomes{Refused: []string{"no_rule", "source_not_allowed"}})

	accepted := set.Accepted("10.0.0.5:5432")
	accepted()
	set.Started()
	set.Refused("8a0vq2cqj8o3k-1", "no_rule", false)

	server := httptest.NewServer(set.Handler(func() bool { return true }))
	defer server.Close()
	response, err := http.Get(server.URL + "/metrics")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		fmt.Println(err)
		return
	}
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "pgwicket_connections_") {
			fmt.Print(line)
		}
	}
	// Output:
	// pgwicket_connections_accepted_total{listener="10.0.0.5:5432"} 1
	// pgwicket_connections_awaiting_proxy_header 0
	// pgwicket_connections_refused_total{outcome="no_rule"} 1
	// pgwicket_connections_refused_total{outcome="source_not_allowed"} 0
	// pgwicket_connections_starting 0
	// pgwicket_connections_unproved 0
	// pgwicket_connections_verified 0
}
