package kubernetes_test

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"pgwicket/internal/tlstest"
)

// kubelet is a volume as the kubelet makes it of ConfigMaps and Secrets: the files in a directory with the time in its
// name, ..data a link to that, and what the container sees links through ..data.
type kubelet struct {
	dir   string
	mode  fs.FileMode
	group int // -1: whoever runs the test
	round int
}

// mount makes a volume in a directory of its own, outside of t.TempDir, which only its maker may enter.
func (g *gate) mount(t *testing.T, mode *int32) *kubelet {
	t.Helper()
	k := &kubelet{dir: sharedDir(t), mode: 0o644, group: -1}
	if mode != nil {
		k.mode = fs.FileMode(*mode)
	}
	if os.Geteuid() == 0 {
		// SetVolumeOwnership of the kubelet, for a volume that is read-only.
		k.group = int(*g.workload.template.Spec.SecurityContext.FSGroup)
		k.mode |= 0o440
	} else {
		// Nobody but root can make files of root's: those of the gate itself must be its own alone.
		k.mode &= 0o700
	}
	return k
}

func sharedDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "kubernetes")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// write makes files the contents of the volume, all in one step.
func (k *kubelet) write(files map[string][]byte) error {
	k.round++
	before, _ := os.Readlink(filepath.Join(k.dir, "..data"))
	now := fmt.Sprintf("..2026_01_02_03_04_05.%09d", k.round)
	if err := os.Mkdir(filepath.Join(k.dir, now), 0o755); err != nil {
		return err
	}
	for name, text := range files {
		if err := k.file(filepath.Join(k.dir, now, name), text); err != nil {
			return err
		}
	}
	next := filepath.Join(k.dir, "..data_tmp")
	if err := os.Symlink(now, next); err != nil {
		return err
	}
	if err := os.Rename(next, filepath.Join(k.dir, "..data")); err != nil {
		return err
	}
	for name := range files {
		if err := os.Symlink(filepath.Join("..data", name), filepath.Join(k.dir, name)); err != nil && !os.IsExist(err) {
			return err
		}
	}
	if before == "" {
		return nil
	}
	return os.RemoveAll(filepath.Join(k.dir, before))
}

func (k *kubelet) file(name string, text []byte) error {
	if err := os.WriteFile(name, text, 0o600); err != nil {
		return err
	}
	if err := os.Lchown(name, -1, k.group); err != nil {
		return err
	}
	return os.Chmod(name, k.mode)
}

// command runs pgwicket as the container would: as its user and group, and of the Pod's fsGroup.
func (g *gate) command(binary string, args ...string) *exec.Cmd {
	cmd := exec.Command(binary, args...)
	if os.Geteuid() == 0 {
		s := g.container.SecurityContext
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{
			Uid: uint32(*s.RunAsUser), Gid: uint32(*s.RunAsGroup), Groups: []uint32{uint32(*g.workload.template.Spec.SecurityContext.FSGroup)},
		}}
	}
	return cmd
}

// pki is what cert-manager and the operator put into Secrets and ConfigMaps.
type pki struct {
	ca       *tlstest.CA // issues for the gates and their clients
	database *tlstest.CA
	server   *tlstest.Pair
	crl      []byte
}

func newPKI(names ...string) *pki {
	ca := tlstest.NewCA("pgwicket CA")
	return &pki{ca: ca, database: tlstest.NewCA("database CA"), server: ca.Server(names...), crl: ca.CRL(nil)}
}

// text returns what a key holds that is not in the manifests.
func (p *pki) text(kind, name, key string) []byte {
	switch {
	case key == "tls.crt":
		return p.server.CertPEM()
	case key == "tls.key":
		return p.server.KeyPEM()
	case key == "ca.crl":
		return p.crl
	case kind == "ConfigMap" && name != "pgwicket-ca":
		return p.database.CertPEM()
	}
	return p.ca.CertPEM()
}
