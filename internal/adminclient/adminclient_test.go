package adminclient

import "testing"

func TestReachable(t *testing.T) {
	for address, want := range map[string]string{
		"127.0.0.1:10432": "127.0.0.1:10432", "10.0.0.5:1": "10.0.0.5:1", "0.0.0.0:10432": "127.0.0.1:10432", "[::]:10432": "[::1]:10432", "[fd00::5]:1": "[fd00::5]:1",
	} {
		if got := reachable(address); got != want {
			t.Errorf("%s: %s, want %s", address, got, want)
		}
	}
}
