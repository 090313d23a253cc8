// Package pgconf reads the configuration files of a PostgreSQL server like the server
// itself: postgresql.conf, postgresql.auto.conf, pg_hba.conf, pg_ident.conf and the files
// that they include.
package pgconf

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Cluster has the contents of the configuration files of one server. Settings from its
// command line or environment are not in it.
type Cluster struct {
	Settings map[string]string // the settings in the files, by name in lower case
	Rules    []Rule
	Mappings []Mapping
}

// Read reads the files of the server with its postgresql.conf in dir.
func Read(dir string) (*Cluster, error) {
	c := &Cluster{Settings: make(map[string]string)}
	if err := c.readSettings(filepath.Join(dir, "postgresql.conf"), 0); err != nil {
		return nil, err
	}
	data := dir
	if d := c.Settings["data_directory"]; d != "" {
		data = d
	}
	// The settings of ALTER SYSTEM take precedence.
	err := c.readSettings(filepath.Join(data, "postgresql.auto.conf"), 0)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	locate := func(setting, name string) string {
		if set := c.Settings[setting]; set != "" {
			return resolve(filepath.Join(data, "postgresql.conf"), set)
		}
		return filepath.Join(dir, name)
	}
	if c.Rules, err = readRules(locate("hba_file", "pg_hba.conf")); err != nil {
		return nil, err
	}
	c.Mappings, err = readMappings(locate("ident_file", "pg_ident.conf"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // PostgreSQL starts without it
		return nil, err
	}
	return c, nil
}

// maxFile is far above any file of PostgreSQL's configuration. The account of PostgreSQL can
// include what it likes, and root may be reading.
const maxFile = 16 << 20

// maxDepth is CONF_FILE_MAX_DEPTH of src/include/utils/conffiles.h.
const maxDepth = 10

func tooDeep(file string, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("%s: files include each other more than %d deep", file, maxDepth)
	}
	return nil
}

// resolve returns the path of a name in file, which may be relative to it.
func resolve(file, name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(filepath.Dir(file), name)
}

// included returns the files that an include directive names. isDirective reports
// whether it is one.
func included(file, directive, name string) (files []string, isDirective bool, err error) {
	path := resolve(file, name)
	switch directive {
	case "include":
		return []string{path}, true, nil
	case "include_if_exists":
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			return nil, true, nil
		}
		return []string{path}, true, nil
	case "include_dir":
		entries, err := os.ReadDir(path)
		for _, e := range entries {
			if n := e.Name(); strings.HasSuffix(n, ".conf") && !strings.HasPrefix(n, ".") && !e.IsDir() {
				files = append(files, filepath.Join(path, n))
			}
		}
		slices.Sort(files)
		return files, true, err
	}
	return nil, false, nil
}
