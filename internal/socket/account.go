package socket

// Account is one that As connects as. The zero value is that of this process, and a GID of 0 leaves
// the groups as they are.
type Account struct {
	UID, GID int
	Groups   []int
}
