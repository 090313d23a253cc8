package lock_test

import "golang.org/x/sys/unix"

// setFileAccount makes this thread open files as uid. The kernel takes root's
// capabilities for files with it (capabilities(7)).
func setFileAccount(uid int) error {
	_, err := unix.SetfsuidRetUid(uid)
	return err
}
