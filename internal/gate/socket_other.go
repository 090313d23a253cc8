//go:build !unix

package gate

// restrictMode does nothing: other systems than Unix have no modes of sockets.
func restrictMode(uintptr) {}
