package budget

import (
	"os"
	"path/filepath"
	"testing"
)

func TestOf(t *testing.T) {
	t.Parallel()
	b, ok := Of(1000, 2000)
	if !ok || b.Startups != 1000*Startup || b.Sessions != 2000*Session || b.Total != Base+b.Startups+b.Sessions {
		t.Errorf("%+v, %v", b, ok)
	}
	for _, limits := range [][2]int{{0, 100}, {100, 0}} {
		if b, ok := Of(limits[0], limits[1]); ok {
			t.Errorf("%v: a gate without a limit has the budget %+v", limits, b)
		}
	}
}

func TestLimit(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		group string            // /proc/self/cgroup
		files map[string]string // below the root
		want  int64
	}{
		"version 2": {"0::/system.slice/pgwicket.service\n", map[string]string{
			"system.slice/memory.max":                  "max\n",
			"system.slice/pgwicket.service/memory.max": "268435456\n",
		}, 256 << 20},
		"version 2, the group above has less": {"0::/system.slice/pgwicket.service\n", map[string]string{
			"system.slice/memory.max":                  "134217728\n",
			"system.slice/pgwicket.service/memory.max": "268435456\n",
		}, 128 << 20},
		"version 2, in a container": {"0::/\n", map[string]string{"memory.max": "536870912\n"}, 512 << 20},
		"version 1": {"4:memory:/pod/gate\n3:cpu:/pod\n0::/\n", map[string]string{
			"memory/memory.limit_in_bytes":          "9223372036854771712\n",
			"memory/pod/gate/memory.limit_in_bytes": "268435456\n",
		}, 256 << 20},
		"version 1, the path is the host's": {"4:memory:/docker/0123\n", map[string]string{"memory/memory.limit_in_bytes": "536870912\n"}, 512 << 20},
		"no limit":                          {"0::/user.slice\n", map[string]string{"user.slice/memory.max": "max\n"}, 0},
		"no files":                          {"0::/user.slice\n", nil, 0},
		"no groups":                         {"", nil, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			proc, root := t.TempDir(), t.TempDir()
			write := func(file, text string) {
				if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if c.group != "" {
				write(filepath.Join(proc, "cgroup"), c.group)
			}
			for file, text := range c.files {
				write(filepath.Join(root, file), text)
			}
			if got, err := Limit(proc, root); err != nil || got != c.want {
				t.Errorf("%d, %v, want %d", got, err, c.want)
			}
		})
	}
}

func TestLimitIsNoNumber(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	for name, text := range map[string]string{"cgroup": "0::/\n", "memory.max": "a lot\n"} {
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := Limit(root, root); err == nil {
		t.Errorf("%d was taken from a file that has no number", n)
	}
}
