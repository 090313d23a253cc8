package handover

import (
	"os"

	"golang.org/x/sys/unix"
)

// eventfd is a counter in the kernel that two processes have. One that receives it takes over the descriptor.
type eventfd struct{ fd int }

func newEventfd(counter uint) (eventfd, error) {
	fd, err := unix.Eventfd(counter, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	return eventfd{fd}, os.NewSyscallError("eventfd", err)
}

// Descriptor is for Send.
func (e eventfd) Descriptor() int { return e.fd }

// Close closes the descriptor.
func (e eventfd) Close() { _ = unix.Close(e.fd) }

// Mark is a sign that one process sets and the other one sees, also when the channel between them is gone and
// the one that has set it is dead. It is never taken back.
type Mark struct{ eventfd }

// NewMark returns a mark that is not set.
func NewMark() (Mark, error) {
	e, err := newEventfd(0)
	return Mark{e}, err
}

// MarkOf returns the mark that a descriptor is, which it takes over.
func MarkOf(fd int) Mark { return Mark{eventfd{fd}} }

// Set sets the mark.
func (m Mark) Set() error {
	_, err := unix.Write(m.fd, []byte{0, 0, 0, 0, 0, 0, 0, 1}) // any number but 0 will do, in either byte order
	return os.NewSyscallError("write", err)
}

// IsSet reports whether the mark has been set. One that cannot be read counts as set.
func (m Mark) IsSet() bool {
	all := []unix.PollFd{{Fd: int32(m.fd), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(all, 0)
		if err != unix.EINTR {
			return err != nil || n > 0
		}
	}
}

// Claim is what exactly one of two processes can take. The kernel decides, so that it holds also when the channel between
// them is gone, and when the one that has taken it is dead. Nobody can give it back.
type Claim struct{ eventfd }

// NewClaim returns a claim that nobody has taken.
func NewClaim() (Claim, error) {
	e, err := newEventfd(1)
	return Claim{e}, err
}

// ClaimOf returns the claim that a descriptor is, which it takes over.
func ClaimOf(fd int) Claim { return Claim{eventfd{fd}} }

// Take takes the claim, and reports whether it has. One that cannot be read counts as taken by the other process.
func (c Claim) Take() bool {
	var counter [8]byte // a read sets it back, so there is one that succeeds
	for {
		n, err := unix.Read(c.fd, counter[:])
		if err != unix.EINTR {
			return err == nil && n == len(counter)
		}
	}
}
