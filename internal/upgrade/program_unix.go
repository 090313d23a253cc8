//go:build unix

package upgrade

import (
	"fmt"
	"os"
	"runtime"
	"syscall"
)

// ProgramID tells the file that this process runs from another one, also from one that has taken its name
// since; empty: it is not known.
func ProgramID() string {
	name := "/proc/self/exe" // leads to the file itself
	if runtime.GOOS != "linux" {
		name, _ = os.Executable()
	}
	st, err := os.Stat(name)
	if err != nil {
		return ""
	}
	s, ok := st.Sys().(*syscall.Stat_t)
	if !ok {
		return ""
	}
	return fmt.Sprintf("%d:%d:%d", s.Dev, s.Ino, st.ModTime().UnixNano())
}
