package deploy_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	release "github.com/goreleaser/goreleaser/v2/pkg/config"
	"github.com/rhysd/actionlint"
)

func TestRelease(t *testing.T) {
	review(t, reviewed{
		file:  ".goreleaser.yaml",
		check: checkRelease,
		spare: describing, prose: describing,
	})
}

// checkRelease wants what the Makefile builds, for both architectures, in archives and
// packages, each with its SBOM and checksum.
func checkRelease(path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	p, err := release.LoadReader(bytes.NewReader(text))
	if err != nil {
		return err
	}
	if p.Version != 2 || p.ProjectName != "pgwicket" || len(p.Builds) != 1 || len(p.Archives) != 1 || len(p.NFPMs) != 1 || len(p.SBOMs) != 2 {
		return errors.New("builds, archives, nfpms or sboms are missing")
	}
	b, a, n := p.Builds[0], p.Archives[0], p.NFPMs[0]
	var packed []string
	for _, f := range a.Files {
		found, err := filepath.Glob(filepath.Join(top, f.Source))
		if err != nil || len(found) == 0 {
			return fmt.Errorf("archives: there is no %s", f.Source)
		}
		packed = append(packed, f.Source)
	}
	return errors.Join(
		like("build", []string{b.Main, b.Binary, b.ModTimestamp}, []string{"./cmd/pgwicket", "pgwicket", "{{.CommitTimestamp}}"}),
		like("before", p.Before.Hooks, []string{`deploy/packages/generate.sh bin/generated -trimpath -ldflags "-w -X main.version={{.Version}}"`}),
		like("env", b.Env, []string{"CGO_ENABLED=0"}),
		like("goos and goarch", slices.Concat(b.Goos, b.Goarch), []string{"linux", "amd64", "arm64"}),
		like("flags", b.Flags, []string{"-trimpath"}),
		like("ldflags", b.Ldflags, []string{"-w -X main.version={{.Version}}"}),
		like("archives", append(a.Formats, a.BuildsInfo.MTime), []string{"tar.gz", "{{.CommitDate}}"}),
		like("files", packed, []string{"LICENSE", "README.md", "CHANGELOG.md", "config.example.yaml", "docs/*.md", "deploy/systemd/*", "deploy/fail2ban/*", "deploy/haproxy/*"}),
		like("nfpms", append(n.Formats, n.Bindir, n.MTime), []string{"deb", "rpm", "/usr/bin", "{{.CommitDate}}"}),
		like("checksum", []string{p.Checksum.NameTemplate, p.Checksum.Algorithm}, []string{"SHA256SUMS", "sha256"}),
		like("sboms", []string{p.SBOMs[0].Artifacts, p.SBOMs[1].Artifacts, p.SBOMs[1].ID}, []string{"archive", "package", "packages"}),
		like("changelog", []string{p.Changelog.Disable}, []string{"true"}),
		samePackages(filepath.Join(top, packageConfig), path),
	)
}

func TestWorkflows(t *testing.T) {
	need(t, "shellcheck")
	names := []string{"name:", "- name:", "timeout-minutes:"}
	jobs := []string{"test:", "image:", "scan:"} // their names are for people
	review(t, reviewed{
		file:  ".github/workflows/ci.yaml",
		check: checkWorkflow(ciSteps),
		spare: append(names, "concurrency:", "group:", "cancel-in-progress:"),
		prose: jobs,
	})
	review(t, reviewed{
		file:  ".github/workflows/release.yaml",
		check: checkWorkflow(releaseSteps),
		spare: names, prose: jobs,
	})
}

// What each workflow must come to, line by line of its steps. What else is in it
// actionlint knows.
var (
	common = []string{
		"permissions:", "contents: read", "persist-credentials: false", "go-version-file: deploy/test/go.mod", "runs-on: ubuntu-24.04",
		`run: sudo --preserve-env=HOME,GOTOOLCHAIN env "PATH=$PATH" .ci/run`,
	}
	ciSteps = append([]string{
		`cache-dependency-path: "**/go.sum"`, `cache-dependency-path: "**/go.sum"`, "branches: [main]", "pull_request:", `- cron: "17 4 * * 1"`,
		`docker build -f deploy/docker/Dockerfile --build-arg "VERSION=$GITHUB_SHA" -t pgwicket .`,
		"docker run --rm --read-only --cap-drop ALL pgwicket version",
		"go tool -modfile=tools/go.mod govulncheck ./...", "make build",
		"go tool -modfile=tools/go.mod govulncheck -mode=binary bin/pgwicket",
	}, common...)
	releaseSteps = append([]string{
		`tags: ["v*"]`, "contents: write", "fetch-depth: 0", "cache: false",
		"run: go tool -modfile=tools/go.mod govulncheck ./...",
		"go install github.com/goreleaser/goreleaser/v2@v2.15.0", "go install github.com/anchore/syft/cmd/syft@v1.42.3",
		`echo "$(go env GOPATH)/bin" >>"$GITHUB_PATH"`,
		"run: goreleaser release --clean", "GITHUB_TOKEN: ${{ secrets.GITHUB_TOKEN }}",
		"env:", "env:", "needs: release", "if: vars.IMAGE != ''",
		`printf '%s' "$REGISTRY_PASSWORD" | docker login --username "$REGISTRY_USER" --password-stdin "$REGISTRY"`,
		"docker buildx create --use",
		`docker buildx build -f deploy/docker/Dockerfile --build-arg "VERSION=${GITHUB_REF_NAME#v}" \`,
		`--platform linux/amd64,linux/arm64 --sbom=true --provenance=mode=max \`,
		`--tag "$IMAGE:${GITHUB_REF_NAME#v}" --push .`,
		"IMAGE: ${{ vars.IMAGE }}", "REGISTRY: ${{ vars.REGISTRY }}",
		"REGISTRY_USER: ${{ secrets.REGISTRY_USER }}", "REGISTRY_PASSWORD: ${{ secrets.REGISTRY_PASSWORD }}",
	}, common...)
)

// pinned is an action at a commit, with the release that it is.
var pinned = regexp.MustCompile(`^- uses: [a-z-]+/[a-z-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$`)

// checkWorkflow returns the check for a workflow with these lines.
func checkWorkflow(lines []string) func(path string) error {
	return func(path string) error {
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		var wrong []error
		count := map[string]int{}
		for line := range strings.Lines(string(text)) {
			line = strings.TrimSpace(line)
			count[line]++
			if strings.Contains(line, "uses:") && !pinned.MatchString(line) {
				wrong = append(wrong, fmt.Errorf("not at a commit: %s", line))
			}
		}
		for i, l := range lines {
			if had := 1 + times(lines[:i], l); count[l] < had {
				wrong = append(wrong, fmt.Errorf("there is no %q (%d)", l, had))
			}
		}
		if err := errors.Join(append(wrong, jobs(count))...); err != nil {
			return err // the linter takes longer
		}
		return lint(path, text)
	}
}

func times(lines []string, line string) (n int) {
	for _, l := range lines {
		if l == line {
			n++
		}
	}
	return n
}

// lint reads the workflow strictly, and has shellcheck read its scripts.
func lint(path string, text []byte) error {
	linter, err := actionlint.NewLinter(io.Discard, &actionlint.LinterOptions{Shellcheck: "shellcheck"})
	if err != nil {
		return err
	}
	found, err := linter.Lint(path, text, nil)
	for _, f := range found {
		err = errors.Join(err, f)
	}
	return err
}

// jobs wants each job to begin alike: on a machine of one release, with a checkout that
// leaves no credentials behind, and with the Go of our own choice where it has one.
func jobs(count map[string]int) error {
	checkout, setup := 0, 0
	for line, n := range count {
		switch {
		case strings.HasPrefix(line, "- uses: actions/checkout@"):
			checkout += n
		case strings.HasPrefix(line, "- uses: actions/setup-go@"):
			setup += n
		}
	}
	machines := count["runs-on: ubuntu-24.04"]
	if checkout != machines || count["persist-credentials: false"] != machines || setup != count["go-version-file: deploy/test/go.mod"] || setup != machines-1 {
		return fmt.Errorf("%d machines, %d checkouts, %d times Go", machines, checkout, setup)
	}
	return nil
}

// TestToolsOfRelease: the workflow installs the goreleaser that has checked its file.
func TestToolsOfRelease(t *testing.T) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Path}}@{{.Version}}", "github.com/goreleaser/goreleaser/v2").Output()
	if err != nil {
		t.Fatal(err)
	}
	if want := "go install " + strings.TrimSpace(string(out)) + "\n"; !strings.Contains(read(t, ".github/workflows/release.yaml"), want) {
		t.Errorf("there is no %q", want)
	}
}
