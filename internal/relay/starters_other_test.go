//go:build !linux

package relay

import "testing"

var starters = map[string]starter{"pump": startPump}

func sharedRelay(*testing.T) (with starter, stop func()) { return startPump, func() {} }
