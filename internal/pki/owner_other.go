//go:build !unix

package pki

import "io/fs"

// ownerOf has no number outside of Unix.
func ownerOf(fs.FileInfo) int { return -1 }
