package pgtest

import (
	"os"
	"path/filepath"
	"strconv"
)

// Releases returns the servers besides that of Find that "make interop-quick" has installed into
// .interop, or into the directory that INTEROP names, by their major release. root is the way to the
// root of the repository.
func Releases(root string) map[int]Options {
	store := os.Getenv("INTEROP")
	if store == "" {
		store = filepath.Join(root, ".interop")
	}
	all := make(map[int]Options)
	for _, major := range []int{14, 16, 17, 18} {
		native, err := filepath.Abs(filepath.Join(store, "npm", "node_modules", "pg"+strconv.Itoa(major), "native"))
		if err == nil && executable(filepath.Join(native, "bin", "postgres")) {
			all[major] = Options{BinDir: filepath.Join(native, "bin"), LibDir: filepath.Join(native, "lib")}
		}
	}
	return all
}
