// Package kubernetes_test renders what stands beside it and in ../../helm as kubectl and helm do, and holds it to the
// types of Kubernetes, to itself, and to pgwicket.
package kubernetes_test

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

const chartDir = "helm/pgwicket/"

// tree is the files of deploy by their paths in it, so that a test can change one without a copy on a disk.
type tree map[string][]byte

func readTree(t *testing.T) tree {
	t.Helper()
	files := tree{}
	for _, dir := range []string{"kubernetes", "helm"} {
		err := filepath.WalkDir(filepath.Join("../..", dir), func(path string, e fs.DirEntry, err error) error {
			switch {
			case err != nil:
				return err
			case e.IsDir() && e.Name() == "test":
				return fs.SkipDir
			case e.IsDir():
				return nil
			}
			text, err := os.ReadFile(path)
			name, _ := strings.CutPrefix(filepath.ToSlash(path), "../../")
			files[name] = text
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return files
}

// with returns the tree with another text for one file.
func (f tree) with(name string, text []byte) tree {
	changed := maps.Clone(f)
	changed[name] = text
	return changed
}

// kustomize runs "kubectl kustomize DIR".
func (f tree) kustomize(dir string) ([]byte, error) {
	disk := filesys.MakeFsInMemory()
	for name, text := range f {
		if err := disk.WriteFile("/"+name, text); err != nil {
			return nil, err
		}
	}
	made, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(disk, "/"+dir)
	if err != nil {
		return nil, err
	}
	return made.AsYaml()
}

func (f tree) chart() (*chart.Chart, error) {
	var files []*loader.BufferedFile
	for _, name := range slices.Sorted(maps.Keys(f)) {
		if inside, ok := strings.CutPrefix(name, chartDir); ok {
			files = append(files, &loader.BufferedFile{Name: inside, Data: f[name]})
		}
	}
	return loader.LoadFiles(files)
}

// template runs "helm template RELEASE" and returns the notes separately. A missing value is an error.
func (f tree) template(release, namespace string, values map[string]any) (manifests, notes []byte, err error) {
	c, err := f.chart()
	if err != nil {
		return nil, nil, err
	}
	options := chartutil.ReleaseOptions{Name: release, Namespace: namespace, Revision: 1, IsInstall: true}
	all, err := chartutil.ToRenderValues(c, values, options, chartutil.DefaultCapabilities)
	if err != nil {
		return nil, nil, err
	}
	texts, err := engine.Engine{Strict: true}.Render(c, all)
	if err != nil {
		return nil, nil, err
	}
	for _, name := range slices.Sorted(maps.Keys(texts)) {
		switch text := texts[name]; {
		case strings.HasSuffix(name, "NOTES.txt"):
			notes = []byte(text)
		case strings.HasSuffix(name, ".yaml"):
			manifests = append(manifests, "---\n"+text+"\n"...)
		case strings.TrimSpace(text) != "":
			err = errors.Join(err, fmt.Errorf("%s prints %q", name, text))
		}
	}
	return manifests, notes, err
}
