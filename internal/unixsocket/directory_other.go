//go:build !unix

package unixsocket

import (
	"net"
	"os"
	"path/filepath"

	"pgwicket/internal/account"
)

// directory is a directory by its name: other systems than Unix have no accounts to
// change to, and no modes of sockets.
type directory struct{ path string }

func openDirectory(path string) (*directory, error) { return &directory{path}, nil }

func (*directory) close() {}

func (d *directory) remove(name string) error { return os.Remove(filepath.Join(d.path, name)) }

func (d *directory) rename(from, to string) error {
	return os.Rename(filepath.Join(d.path, from), filepath.Join(d.path, to))
}

func (d *directory) listen(name string) (net.Listener, error) {
	return net.Listen("unix", filepath.Join(d.path, name))
}

func (*directory) restrict(string, *account.Account) error { return nil }
