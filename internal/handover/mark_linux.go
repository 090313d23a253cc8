package handover

import (
	"os"

	"golang.org/x/sys/unix"
)

// Mark is a sign that one process sets and the other one sees, also when the channel between them is gone and
// the one that has set it is dead. It is never taken back.
type Mark struct{ fd int }

// NewMark returns a mark that is not set.
func NewMark() (Mark, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	return Mark{fd}, os.NewSyscallError("eventfd", err)
}

// MarkOf returns the mark that a descriptor is, which it takes over.
func MarkOf(fd int) Mark { return Mark{fd} }

// Descriptor is for Send.
func (m Mark) Descriptor() int { return m.fd }

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

// Close closes the descriptor.
func (m Mark) Close() { _ = unix.Close(m.fd) }

// Claim is what exactly one of two processes can take. The kernel decides, so that it holds also when the channel between
// them is gone, and when the one that has taken it is dead. Nobody can give it back.
type Claim struct{ fd int }

// NewClaim returns a claim that nobody has taken.
func NewClaim() (Claim, error) {
	fd, err := unix.Eventfd(1, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	return Claim{fd}, os.NewSyscallError("eventfd", err)
}

// ClaimOf returns the claim that a descriptor is, which it takes over.
func ClaimOf(fd int) Claim { return Claim{fd} }

// Descriptor is for Send.
func (c Claim) Descriptor() int { return c.fd }

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

// Close closes the descriptor.
func (c Claim) Close() { _ = unix.Close(c.fd) }
