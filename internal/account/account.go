// Package account looks up the accounts of this system. It imports nothing of pgwicket.
package account

import (
	"fmt"
	"os/user"
	"strconv"
)

// Account is one that a process of root can become.
type Account struct {
	Name     string
	Group    string // its first
	UID, GID int
	Groups   []int // all of them
}

// Find returns the account of that name. Without cgo, as in a release, it reads
// /etc/passwd and /etc/group only.
func Find(name string) (*Account, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return nil, fmt.Errorf("there is no account %q in /etc/passwd", name)
	}
	a := &Account{Name: name, Group: u.Gid}
	if g, err := user.LookupGroupId(u.Gid); err == nil {
		a.Group = g.Name
	}
	ids, err := u.GroupIds()
	if err != nil {
		return nil, fmt.Errorf("the groups of %q cannot be found: %w", name, err)
	}
	numbers := make([]int, 0, 2+len(ids))
	for _, id := range append([]string{u.Uid, u.Gid}, ids...) {
		n, err := strconv.Atoi(id)
		if err != nil {
			return nil, fmt.Errorf("the account %q has no number: %w", name, err)
		}
		numbers = append(numbers, n)
	}
	a.UID, a.GID, a.Groups = numbers[0], numbers[1], numbers[2:]
	return a, nil
}
