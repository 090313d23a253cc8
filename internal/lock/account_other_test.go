//go:build unix && !linux

package lock_test

import "errors"

func setFileAccount(int) error { return errors.ErrUnsupported }
