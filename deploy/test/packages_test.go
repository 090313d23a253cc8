package deploy_test

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	release "github.com/goreleaser/goreleaser/v2/pkg/config"
	"github.com/goreleaser/nfpm/v2"
	_ "github.com/goreleaser/nfpm/v2/deb" // registers itself
	"github.com/goreleaser/nfpm/v2/files"
	_ "github.com/goreleaser/nfpm/v2/rpm"
)

const packageConfig = "deploy/packages/nfpm.yaml"

func TestPackageConfig(t *testing.T) {
	review(t, reviewed{
		file:  packageConfig,
		check: func(path string) error { return samePackages(path, filepath.Join(top, ".goreleaser.yaml")) },
		prose: describing,
		spare: append(describing, "platform: linux"), // the default
	})
}

// describing are the lines of the description.
var describing = []string{
	"TLS gate in front of", "pgwicket terminates TLS", "revocation lists, admits", "hands them to PostgreSQL",
}

// samePackages wants the packages that nfpm makes by itself and those of goreleaser to
// be the same, and all that is in them to be there.
func samePackages(path, releasePath string) error {
	config, err := nfpm.ParseFileWithEnvMapping(path, func(name string) string { return "of " + name })
	if err != nil {
		return err
	}
	project, err := release.Load(releasePath)
	if err != nil {
		return err
	}
	if len(project.NFPMs) != 1 {
		return errors.New("goreleaser makes no packages")
	}
	theirs := project.NFPMs[0]
	// goreleaser puts the program there by itself.
	want := []string{line("/usr/bin/pgwicket", "bin/pgwicket", "", 0o755)}
	for _, c := range theirs.Contents {
		found, err := filepath.Glob(filepath.Join(top, c.Source))
		if err != nil || len(found) == 0 && !strings.HasPrefix(c.Source, "bin/generated/") {
			return fmt.Errorf("there is no %s (%v)", c.Source, err)
		}
		want = append(want, line(c.Destination, c.Source, c.Type, c.FileInfo.Mode))
	}
	var got []string
	for _, c := range config.Contents {
		got = append(got, line(c.Destination, c.Source, c.Type, cmp.Or(c.FileInfo, &files.ContentFileInfo{}).Mode))
	}
	return errors.Join(
		like("contents", got, want),
		like("about", []string{config.Name, config.Arch, config.Platform, config.Version, config.Section, config.Priority, config.Maintainer, config.Description, config.License},
			[]string{project.ProjectName, "of GOARCH", "linux", "of VERSION", theirs.Section, theirs.Priority, theirs.Maintainer, theirs.Description, theirs.License}),
		like("scripts", []string{config.Scripts.PreInstall, config.Scripts.PostInstall, config.Scripts.PreRemove, config.Scripts.PostRemove},
			[]string{"", theirs.Scripts.PostInstall, theirs.Scripts.PreRemove, theirs.Scripts.PostRemove}),
	)
}

func line(target, source, kind string, mode os.FileMode) string {
	return fmt.Sprintf("%s from %s, %s %04o", target, source, kind, mode)
}

// TestPackageScripts: shellcheck has nothing to say, and each way that dpkg and rpm
// call them does what it should, and no more.
func TestPackageScripts(t *testing.T) {
	need(t, "shellcheck")
	for name, calls := range scriptCalls {
		review(t, reviewed{
			file:  "deploy/packages/" + name + ".sh",
			spare: endless[name],
			check: func(path string) error {
				if out, err := exec.Command("shellcheck", path).CombinedOutput(); err != nil {
					return fmt.Errorf("shellcheck: %s", out)
				}
				for _, c := range calls {
					if err := c.check(path); err != nil {
						return err
					}
				}
				return nil
			},
		})
	}
}

// endless are lines that make no difference where one command is the last.
var endless = map[string][]string{"preremove": {"set -e"}, "postremove": {"set -e"}}

// call is a call of a script by dpkg or rpm: with which arguments, on a machine that
// lacks which programs, where which command fails, and what it must then have called.
type call struct {
	args       string
	offline    bool   // systemd does not run, as in a container
	configured bool   // there is a configuration
	without    string // a program that there is not
	failing    string // a command that fails
	fails      bool
	want       string
}

const (
	refreshed = "systemctl daemon-reload\n"
	asked     = "systemctl --quiet is-active pgwicket.service\n"
	accounted = "systemd-sysusers pgwicket.conf\n"
	copied    = "install -D -m 0644 /usr/share/pgwicket/pgwicket.yaml /etc/pgwicket/pgwicket.yaml\n"
	purged    = "rm -f /etc/pgwicket/pgwicket.yaml\nrmdir --ignore-fail-on-non-empty /etc/pgwicket\n"
	checked   = "runuser -u pgwicket -- pgwicket check\n"
	planned   = checked + "runuser -u pgwicket -- pgwicket upgrade --dry-run\n"
	upgraded  = planned + "systemctl reload pgwicket.service\n"
	drained   = "pgwicket: the gate restarts, which drains its sessions: "
	restarted = "systemctl --no-block restart pgwicket.service\n"
	disabled  = "systemctl --quiet disable --now pgwicket-ca-crl.timer pgwicket-fetch.service pgwicket.socket pgwicket.service\n"
)

var scriptCalls = map[string][]call{
	"postinstall": {
		{args: "configure", want: accounted + copied + refreshed},
		{args: "configure", configured: true, want: accounted + refreshed},
		{args: "1", want: accounted + copied + refreshed},
		{args: "configure", offline: true, want: accounted + copied},
		{args: "configure", without: "systemd-sysusers", failing: "getent passwd pgwicket", offline: true, want: "getent passwd pgwicket\n" +
			"useradd --system --user-group --home-dir / --shell /usr/sbin/nologin pgwicket\n" + copied},
		{args: "configure", without: "systemd-sysusers", offline: true, want: "getent passwd pgwicket\n" + copied},
		{args: "configure 1.0.0", want: accounted + refreshed + asked + upgraded},
		{args: "2", want: accounted + refreshed + asked + upgraded},
		{args: "2", failing: "runuser -u pgwicket -- pgwicket upgrade --dry-run", want: accounted + refreshed + asked + planned + restarted + "says " + drained + "why it fails\n"},
		{args: "2", failing: "systemctl reload pgwicket.service", want: accounted + refreshed + asked + upgraded + restarted +
			"says " + drained + "the new version could not take over; see journalctl -u pgwicket\n"},
		{args: "configure 1.0.0", failing: strings.TrimSpace(asked), want: accounted + refreshed + asked},
		{args: "configure 1.0.0", failing: strings.TrimSpace(checked), want: accounted + refreshed + asked + checked +
			"says pgwicket: the new version refuses the configuration; the old version keeps running until you restart it\n"},
		{args: "configure 1.0.0", failing: strings.TrimSpace(refreshed), fails: true, want: accounted + refreshed},
		{args: "configure", failing: strings.TrimSpace(copied), fails: true, want: accounted + copied},
		{args: "abort-upgrade", want: ""},
	},
	"preremove": {
		{args: "remove", want: disabled},
		{args: "deconfigure", want: disabled},
		{args: "0", want: disabled},
		{args: "remove", offline: true, want: ""},
		{args: "upgrade 2.0.0", want: ""},
		{args: "1", want: ""},
	},
	"postremove": {
		{args: "remove", want: refreshed},
		{args: "0", want: refreshed},
		{args: "purge", offline: true, want: purged},
		{args: "purge", want: purged + refreshed},
	},
}

// check runs the script with programs that only note that they have been called.
func (c call) check(script string) error {
	dir, err := os.MkdirTemp("", "pgwicket-script-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	for _, name := range []string{"systemctl", "systemd-sysusers", "getent", "useradd", "runuser", "install", "rm", "rmdir"} {
		if name == c.without {
			continue
		}
		stub := fmt.Sprintf("#!/bin/sh\necho \"${0##*/} $*\" >>%s/calls\n[ \"${0##*/} $*\" != %q ] && exit\n"+
			"case $* in *--dry-run) echo why it fails >&2 ;; esac\nexit 1\n", dir, strings.ReplaceAll(c.failing, "/etc/pgwicket", dir+"/etc"))
		if err := os.WriteFile(filepath.Join(dir, name), []byte(stub), 0o700); err != nil {
			return err
		}
	}
	text, err := os.ReadFile(script)
	if err != nil {
		return err
	}
	running := dir
	if c.offline {
		running = dir + "/none"
	}
	text = bytes.ReplaceAll(text, []byte("/run/systemd/system"), []byte(running))
	text = bytes.ReplaceAll(text, []byte("/etc/pgwicket"), []byte(dir+"/etc"))
	if c.configured {
		if err := errors.Join(os.Mkdir(filepath.Join(dir, "etc"), 0o700), os.WriteFile(filepath.Join(dir, "etc/pgwicket.yaml"), nil, 0o600)); err != nil {
			return err
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "script"), text, 0o600); err != nil {
		return err
	}
	cmd := exec.Command("/bin/sh", append([]string{filepath.Join(dir, "script")}, strings.Fields(c.args)...)...)
	cmd.Env = []string{"PATH=" + dir}
	said, err := cmd.CombinedOutput()
	if (err != nil) != c.fails {
		return fmt.Errorf("%s: %v: %s", c.args, err, said)
	}
	calls, err := os.ReadFile(filepath.Join(dir, "calls"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	calls = bytes.ReplaceAll(calls, []byte(dir+"/etc"), []byte("/etc/pgwicket"))
	if len(said) > 0 {
		calls = append(calls, "says "+string(said)...)
	}
	if string(calls) != c.want {
		return fmt.Errorf("%s: called\n%swant\n%s", c.args, calls, c.want)
	}
	return nil
}

// generated is a directory with what deploy/packages/generate.sh writes.
func generated(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(built, "generated")
	if _, err := os.Stat(dir); err == nil {
		return dir
	}
	cmd := exec.Command("deploy/packages/generate.sh", dir, "-ldflags", "-X main.version=1.2.3")
	cmd.Dir = top
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return dir
}

// TestGenerated: the manual page and the completions are those of this version, and shellcheck
// has nothing to say of the script that writes them.
func TestGenerated(t *testing.T) {
	need(t, "shellcheck")
	if out, err := exec.Command("shellcheck", filepath.Join(top, "deploy/packages/generate.sh")).CombinedOutput(); err != nil {
		t.Errorf("shellcheck: %s", out)
	}
	for name, want := range map[string]string{
		"pgwicket.8": "pgwicket 1.2.3", "pgwicket.bash": "complete -o default", "pgwicket.zsh": "#compdef pgwicket", "pgwicket.fish": "complete -c pgwicket",
	} {
		text, err := os.ReadFile(filepath.Join(generated(t), name))
		if err != nil || !strings.Contains(string(text), want) {
			t.Errorf("%s: no %q (%v)", name, want, err)
		}
	}
}

// makePackage makes the package as nfpm does, with the program of the image.
func makePackage(t *testing.T, format, version string) string {
	t.Helper()
	config, err := nfpm.ParseFileWithEnvMapping(filepath.Join(top, packageConfig), func(name string) string {
		return map[string]string{"GOARCH": runtime.GOARCH, "VERSION": version}[name]
	})
	if err != nil {
		t.Fatal(err)
	}
	info, err := config.Get(format)
	if err != nil {
		t.Fatal(err)
	}
	info = nfpm.WithDefaults(info)
	for _, c := range info.Contents {
		switch name, isGenerated := strings.CutPrefix(c.Source, "bin/generated/"); {
		case isGenerated:
			c.Source = filepath.Join(generated(t), name)
		case c.Source == "bin/pgwicket":
			c.Source = program(t)
		case strings.HasPrefix(c.Destination, "/usr/share/pgwicket/"): // each version has another example
			example := filepath.Join(t.TempDir(), "example.yaml")
			write(t, example, read(t, c.Source)+"# "+version+"\n")
			c.Source = example
		default:
			c.Source = filepath.Join(top, c.Source)
		}
	}
	for _, script := range []*string{&info.Scripts.PostInstall, &info.Scripts.PreRemove, &info.Scripts.PostRemove} {
		*script = filepath.Join(top, *script)
	}
	if err := nfpm.PrepareForPackager(info, format); err != nil {
		t.Fatal(err)
	}
	packager, err := nfpm.Get(format)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), packager.ConventionalFileName(info))
	info.Target = path
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(packager.Package(info, file), file.Close()); err != nil {
		t.Fatal(err)
	}
	return path
}

// installed is what both packages put where, without the pages and pictures of docs.
var installed = []string{
	"/etc/fail2ban/filter.d/pgwicket.conf",
	"/usr/bin/pgwicket",
	"/usr/lib/systemd/system/pgwicket-ca-crl.service",
	"/usr/lib/systemd/system/pgwicket-ca-crl.timer",
	"/usr/lib/systemd/system/pgwicket-fetch.service",
	"/usr/lib/systemd/system/pgwicket.service",
	"/usr/lib/systemd/system/pgwicket.socket",
	"/usr/lib/sysusers.d/pgwicket.conf",
	"/usr/share/bash-completion/completions/pgwicket",
	"/usr/share/doc/pgwicket/CHANGELOG.md",
	"/usr/share/doc/pgwicket/CONTRIBUTING.md",
	"/usr/share/doc/pgwicket/LICENSE",
	"/usr/share/doc/pgwicket/README.md",
	"/usr/share/doc/pgwicket/SECURITY.md",
	"/usr/share/doc/pgwicket/config.example.yaml",
	"/usr/share/doc/pgwicket/copyright",
	"/usr/share/doc/pgwicket/deploy/README.md",
	"/usr/share/fish/vendor_completions.d/pgwicket.fish",
	"/usr/share/man/man8/pgwicket.8",
	"/usr/share/pgwicket/pgwicket.yaml",
	"/usr/share/zsh/vendor-completions/_pgwicket",
}

const docs = "/usr/share/doc/pgwicket/docs/"

// settings are those of them that are the administrator's.
var settings = installed[:1]

var relative = regexp.MustCompile(`\]\(([^):#]+)(?:#[^)]*)?\)`)

// linked fails unless everything that the README of a package refers to is in the package.
func linked(t *testing.T, root string) {
	t.Helper()
	dir := filepath.Join(root, "usr/share/doc/pgwicket")
	text, err := os.ReadFile(filepath.Join(dir, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	links := relative.FindAllStringSubmatch(string(text), -1)
	if len(links) < 10 {
		t.Errorf("only %d links in the README", len(links))
	}
	for _, link := range links {
		if _, err := os.Stat(filepath.Join(dir, link[1])); err != nil {
			t.Errorf("the README refers to %s: %v", link[1], err)
		}
	}
}

// TestRPM: rpm reads the package, finds in it what should be there, and can install it.
func TestRPM(t *testing.T) {
	need(t, "rpm")
	path := makePackage(t, "rpm", "1.2.3")
	query := func(args ...string) []string {
		out, err := exec.Command("rpm", append(append([]string{"-qp"}, args...), path)...).Output()
		if err != nil {
			t.Fatalf("rpm -qp %s: %v", args, err)
		}
		return strings.Split(strings.TrimSpace(string(out)), "\n")
	}
	got := slices.DeleteFunc(query("--list"), func(file string) bool { return strings.HasPrefix(file, docs) })
	if !slices.Equal(got, installed) {
		t.Errorf("it has %q, want %q", got, installed)
	}
	if got := query("--configfiles"); !slices.Equal(got, settings) {
		t.Errorf("the administrator's are %q, want %q", got, settings)
	}
	if got := query("--queryformat", "%{NAME} %{VERSION} %{LICENSE}"); !slices.Equal(got, []string{"pgwicket 1.2.3 Apache-2.0"}) {
		t.Errorf("it is %q", got)
	}
	scripts := strings.Join(query("--scripts"), "\n")
	for _, what := range []string{"postinstall scriptlet", "preuninstall scriptlet", "postuninstall scriptlet", "systemd-sysusers pgwicket.conf"} {
		if !strings.Contains(scripts, what) {
			t.Errorf("no %s in its scripts", what)
		}
	}
	if os.Geteuid() != 0 {
		t.Log("only root may install it")
		return
	}
	root := t.TempDir()
	if out, err := exec.Command("rpm", "--root", root, "--install", "--nodeps", "--noscripts", path).CombinedOutput(); err != nil {
		t.Fatalf("rpm --install: %v: %s", err, out)
	}
	linked(t, root)
	startsIn(t, root)
}

// TestDeb: dpkg installs the package. What it does on a machine with systemd is
// TestMachine's.
func TestDeb(t *testing.T) {
	need(t, "dpkg-deb")
	path := makePackage(t, "deb", "1.2.3")
	root, control := t.TempDir(), t.TempDir()
	for _, args := range [][]string{{"--extract", path, root}, {"--control", path, control}} {
		if out, err := exec.Command("dpkg-deb", args...).CombinedOutput(); err != nil {
			t.Fatalf("dpkg-deb %s: %v: %s", args, err, out)
		}
	}
	for _, file := range installed {
		if _, err := os.Stat(filepath.Join(root, file)); err != nil {
			t.Error(err)
		}
	}
	conffiles, err := os.ReadFile(filepath.Join(control, "conffiles"))
	if got := strings.Fields(string(conffiles)); err != nil || !slices.Equal(got, settings) {
		t.Errorf("the administrator's are %q, want %q (%v)", got, settings, err)
	}
	linked(t, root)
	startsIn(t, root)
}

// startsIn runs what has been installed, with a configuration of ours.
func startsIn(t *testing.T, root string) {
	t.Helper()
	dir, admin := filepath.Join(root, "etc/pgwicket"), freeAddress(t)
	pki(t, dir, dir)
	config := filepath.Join(dir, "pgwicket.yaml")
	text, err := os.ReadFile(filepath.Join(root, "usr/share/pgwicket/pgwicket.yaml")) // the script copies it
	if err != nil {
		t.Fatal(err)
	}
	here := swap(t, string(text), "\n  - address: 10.0.0.5:5432\n", "\n  - address: "+freeAddress(t)+"\n")
	write(t, config, swap(t, here, "\n  address: 127.0.0.1:10432\n", "\n  address: "+admin+"\n"))
	pgwicket := filepath.Join(root, "usr/bin/pgwicket")
	if out, err := exec.Command(pgwicket, "check", "--config", config).CombinedOutput(); err != nil {
		t.Fatalf("check: %v: %s", err, out)
	}
	serve := start(t, exec.Command(pgwicket, "serve", "--config", config))
	waitReady(t, serve, admin)
}
