package deploy_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
)

const dockerfile = "deploy/docker/Dockerfile"

// account is the image's.
const account = 65532

func TestDockerfile(t *testing.T) {
	review(t, reviewed{
		file:  dockerfile,
		check: checkDockerfile,
		spare: []string{"COPY LICENSE"},
	})
	for _, file := range []string{"passwd", "group"} {
		review(t, reviewed{file: "deploy/docker/" + file, check: checkAccount})
	}
}

// checkAccount wants the one account of the image, under the number that USER has.
func checkAccount(path string) error {
	want := map[string]string{
		"passwd": "pgwicket:x:65532:65532:TLS gate in front of PostgreSQL:/nonexistent:/nonexistent\n",
		"group":  "pgwicket:x:65532:\n",
	}[filepath.Base(path)]
	if text, err := os.ReadFile(path); err != nil || string(text) != want {
		return fmt.Errorf("%s: %q, want %q (%v)", path, text, want, err)
	}
	return nil
}

// parseDockerfile reads it as docker build does, and takes every warning for an error.
func parseDockerfile(path string) ([]instructions.Stage, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	tree, err := parser.Parse(bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	var warnings []error
	lint := linter.New(&linter.Config{Warn: func(rule, _, _, text string, _ []parser.Range) {
		warnings = append(warnings, fmt.Errorf("%s: %s", rule, text))
	}})
	for _, w := range tree.Warnings {
		warnings = append(warnings, errors.New(w.Short))
	}
	stages, _, err := instructions.Parse(tree.AST, lint)
	return stages, errors.Join(append(warnings, err)...)
}

func checkDockerfile(path string) error {
	stages, err := parseDockerfile(path)
	if err != nil {
		return err
	}
	if len(stages) != 2 || stages[0].Name != "build" || stages[1].BaseName != "scratch" {
		return errors.New("want a stage named build, and one from scratch")
	}
	return errors.Join(checkBuild(stages[0]), checkImage(stages[1]))
}

// checkBuild wants all that the program is made of, and nothing else, to be copied,
// and the flags of the Makefile.
func checkBuild(s instructions.Stage) error {
	if s.Platform != "$BUILDPLATFORM" || !strings.HasPrefix(s.BaseName, "golang:1.26.") {
		return fmt.Errorf("FROM %s for %s", s.BaseName, s.Platform)
	}
	var copied, ran, args []string
	for _, c := range s.Commands {
		switch c := c.(type) {
		case *instructions.CopyCommand:
			copied = append(copied, c.SourcePaths...)
		case *instructions.RunCommand:
			ran = append(ran, c.CmdLine...)
		case *instructions.ArgCommand:
			for _, a := range c.Args {
				args = append(args, a.Key)
			}
		case *instructions.WorkdirCommand:
			args = append(args, c.Path)
		}
	}
	want, err := sources()
	if err != nil {
		return err
	}
	slices.Sort(copied)
	if !slices.Equal(copied, want) {
		return fmt.Errorf("copied is %q, the program is made of %q", copied, want)
	}
	if want := []string{"/src", "TARGETOS", "TARGETARCH", "VERSION"}; !slices.Equal(args, want) {
		return fmt.Errorf("WORKDIR and ARG are %q, want %q", args, want)
	}
	return like("RUN", ran, []string{
		"go mod download",
		`CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH go build -trimpath -ldflags "-w -X main.version=$VERSION" -o pgwicket ./cmd/pgwicket`,
	})
}

// checkImage wants an image that has only the program, and runs it as nobody.
func checkImage(s instructions.Stage) error {
	got := map[string][]string{}
	for _, c := range s.Commands {
		switch c := c.(type) {
		case *instructions.CopyCommand:
			got["COPY"] = append(got["COPY"], c.DestPath+" from "+c.From)
		case *instructions.UserCommand:
			got["USER"] = append(got["USER"], c.User)
		case *instructions.ExposeCommand:
			got["EXPOSE"] = append(got["EXPOSE"], c.Ports...)
		case *instructions.StopSignalCommand:
			got["STOPSIGNAL"] = append(got["STOPSIGNAL"], c.Signal)
		case *instructions.HealthCheckCommand:
			got["HEALTHCHECK"] = append(c.Health.Test, c.Health.Interval.String())
		case *instructions.EntrypointCommand:
			got["ENTRYPOINT"] = c.CmdLine
		case *instructions.CmdCommand:
			got["CMD"] = c.CmdLine
		default:
			return fmt.Errorf("there is nothing in the image to run %s with", c.Name())
		}
	}
	return errors.Join(
		like("USER", got["USER"], []string{fmt.Sprintf("%d:%[1]d", account)}),
		like("EXPOSE", got["EXPOSE"], []string{"5432"}),
		like("STOPSIGNAL", got["STOPSIGNAL"], []string{"SIGTERM"}),
		like("HEALTHCHECK", got["HEALTHCHECK"], []string{"CMD", "/usr/bin/pgwicket", "healthcheck", "10s"}),
		like("ENTRYPOINT", got["ENTRYPOINT"], []string{"/usr/bin/pgwicket"}),
		like("CMD", got["CMD"], []string{"serve"}),
		like("COPY", slices.DeleteFunc(got["COPY"], func(c string) bool { return c == "/LICENSE from " }),
			[]string{"/etc/passwd from ", "/etc/group from ", "/usr/bin/pgwicket from build"}),
	)
}

func like(what string, got, want []string) error {
	if !slices.Equal(got, want) {
		return fmt.Errorf("%s is %q, want %q", what, got, want)
	}
	return nil
}

// sources are the directories that the program is made of, and its module's files.
var sources = sync.OnceValues(func() ([]string, error) {
	cmd := exec.Command("go", "list", "-deps", "-f", "{{.ImportPath}}", "./cmd/pgwicket")
	cmd.Dir = top
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w", err)
	}
	names := []string{"go.mod", "go.sum"}
	for path := range strings.Lines(string(out)) {
		if ours, ok := strings.CutPrefix(strings.TrimSpace(path), "pgwicket/"); ok {
			dir, _, _ := strings.Cut(ours, "/")
			names = append(names, dir)
		}
	}
	slices.Sort(names)
	return slices.Compact(names), nil
})

// image is what the Dockerfile makes: the commands of its first stage run in a
// directory that has nothing but what it copies, and those of the second give a root
// directory. There need be no docker for that.
var image = sync.OnceValues(func() (string, error) {
	root, src := filepath.Join(built, "image"), filepath.Join(built, "src")
	stages, err := parseDockerfile(filepath.Join(top, dockerfile))
	if err != nil {
		return "", err
	}
	for _, c := range stages[0].Commands {
		switch c := c.(type) {
		case *instructions.CopyCommand:
			err = transfer(top, c.SourcePaths, filepath.Join(src, c.DestPath))
		case *instructions.RunCommand:
			err = build(src, c.CmdLine)
		}
		if err != nil {
			return "", err
		}
	}
	for _, c := range stages[1].Commands {
		if c, ok := c.(*instructions.CopyCommand); ok {
			from, paths := top, slices.Clone(c.SourcePaths)
			if c.From != "" {
				from = src
				paths[0] = strings.TrimPrefix(paths[0], "/src/")
			}
			if err := transfer(from, paths, filepath.Join(root, c.DestPath)); err != nil {
				return "", err
			}
		}
	}
	return root, nil
})

// transfer copies as COPY does: a directory's contents, files into a directory or as one.
func transfer(from string, paths []string, to string) error {
	for _, path := range paths {
		source, target := filepath.Join(from, path), to
		st, err := os.Stat(source)
		if err != nil {
			return err
		}
		if st.IsDir() {
			err = os.CopyFS(target, os.DirFS(source))
		} else {
			if len(paths) > 1 {
				target = filepath.Join(to, filepath.Base(path))
			}
			err = errors.Join(os.MkdirAll(filepath.Dir(target), 0o755), exec.Command("cp", "-p", source, target).Run())
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func build(dir string, lines []string) error {
	cmd := exec.Command("/bin/sh", "-c", strings.Join(lines, " "))
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "TARGETOS=linux", "TARGETARCH="+runtime.GOARCH, "VERSION=1.2.3")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("RUN %s: %w\n%s", lines, err, out)
	}
	return nil
}

// program is the one of the image, which all tests run.
func program(t *testing.T) string {
	t.Helper()
	root, err := image()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(root, "usr/bin/pgwicket")
}

// inImage is a command that runs with the image as its root, as the image's account.
func inImage(root string, args ...string) *exec.Cmd {
	cmd := exec.Command("/usr/bin/pgwicket", args...)
	cmd.Env = []string{}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: root, Credential: &syscall.Credential{Uid: account, Gid: account}}
	return cmd
}
