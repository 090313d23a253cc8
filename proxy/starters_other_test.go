//go:build !linux

package proxy

import "testing"

var starters = map[string]starter{"pump": startPump}

func sharedRelay(*testing.T) (with starter, stop func()) { return startPump, func() {} }
