package kubernetes_test

import (
	"encoding/base64"
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

	"helm.sh/helm/v3/pkg/cli/values"
	"helm.sh/helm/v3/pkg/getter"
	"helm.sh/helm/v3/pkg/lint"
	"helm.sh/helm/v3/pkg/lint/support"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"

	"pgwicket/internal/tlstest"
)

const clusterVariable = "CLUSTER_UNDER_TEST" // a directory with what the cluster would answer, and what it was sent

// kubectl does what the quick start asks of it, as far as that needs no cluster; what it does not know fails.
func kubectl(args []string) error {
	var words []string
	flags := map[string]string{}
	for i := 0; i < len(args); i++ {
		name, value, cut := strings.Cut(args[i], "=")
		switch {
		case !strings.HasPrefix(args[i], "-"):
			words = append(words, args[i])
		case cut:
			flags[name] = value
		case i+1 < len(args):
			i++
			flags[name] = args[i]
		}
	}
	namespace := flags["--namespace"]
	delete(flags, "--namespace")
	switch command := strings.Join(words[:min(2, len(words))], " "); {
	case len(words) == 1 && words[0] == "apply":
		return apply(namespace, flags)
	case command == "create configmap":
		return createConfigMap(words[2], namespace, flags)
	case command == "create secret" && len(words) == 4 && strings.HasPrefix(flags["--from-literal"], "password="):
		return nil
	case command == "get secret" && flags["-o"] != "":
		return getSecret(words[2], flags["-o"])
	case slices.Contains([]string{"create namespace", "label namespace", "rollout status", "get service", "wait certificate/pgwicket-ca"}, command):
		return nil
	}
	return fmt.Errorf("kubectl: the test does not know %q", args)
}

// apply decodes what would be sent, and keeps it.
func apply(namespace string, flags map[string]string) error {
	var manifests []byte
	var err error
	switch {
	case flags["-k"] != "":
		made, failed := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), flags["-k"])
		if failed != nil {
			return failed
		}
		manifests, err = made.AsYaml()
	case flags["-f"] == "-":
		manifests, err = io.ReadAll(os.Stdin)
	default:
		return fmt.Errorf("kubectl apply: what?")
	}
	if err != nil {
		return err
	}
	o, err := decode(manifests)
	if err != nil {
		return err
	}
	return sent(o, namespace)
}

// sent notes the names of what has come to the cluster.
func sent(o *objects, namespace string) error {
	if namespace != "" && o.namespace != "" && namespace != o.namespace {
		return fmt.Errorf("%v are for namespace %s", o.names, o.namespace)
	}
	file, err := os.OpenFile(filepath.Join(os.Getenv(clusterVariable), "sent"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	for _, name := range o.names {
		fmt.Fprintf(file, "%s%s/%s\n", namespace, o.namespace, name)
	}
	return file.Close()
}

func createConfigMap(name, namespace string, flags map[string]string) error {
	from := flags["--from-file"]
	key, file, named := strings.Cut(from, "=")
	if !named {
		key, file = filepath.Base(from), from
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	m := corev1.ConfigMap{Data: map[string]string{key: string(text)}}
	m.APIVersion, m.Kind, m.Name, m.Namespace = "v1", "ConfigMap", name, namespace
	manifest, err := yaml.Marshal(m)
	if err != nil {
		return err
	}
	if flags["--dry-run"] == "client" && flags["-o"] == "yaml" {
		_, err = os.Stdout.Write(manifest)
		return err
	}
	o, err := decode(manifest)
	return errors.Join(err, sent(o, ""))
}

func getSecret(name, output string) error {
	key := strings.NewReplacer(`{.data.`, "", `\.`, ".", `}`, "").Replace(strings.TrimPrefix(output, "jsonpath="))
	text, err := os.ReadFile(filepath.Join(os.Getenv(clusterVariable), name, key))
	if err != nil {
		return err
	}
	_, err = fmt.Print(base64.StdEncoding.EncodeToString(text))
	return err
}

// helm runs "helm lint" and "helm upgrade" without a cluster.
func helm(args []string) error {
	var words []string
	options := values.Options{}
	namespace := "default"
	for i := 0; i < len(args); i++ {
		switch args[i] {
		case "--values":
			i++
			options.ValueFiles = append(options.ValueFiles, args[i])
		case "--set":
			i++
			options.Values = append(options.Values, args[i])
		case "--namespace":
			i++
			namespace = args[i]
		case "--install":
		default:
			words = append(words, args[i])
		}
	}
	given, err := options.MergeValues(getter.Providers{})
	if err != nil {
		return err
	}
	switch {
	case len(words) == 2 && words[0] == "lint":
		var found error
		for _, m := range lint.AllWithKubeVersion(words[1], given, namespace, nil).Messages {
			if m.Severity > support.UnknownSev {
				found = errors.Join(found, m)
			}
		}
		return found
	case len(words) == 3 && words[0] == "upgrade":
		return upgrade(words[1], words[2], namespace, given)
	}
	return fmt.Errorf("helm: the test does not know %q", args)
}

// upgrade holds what helm would send to all that the manifests must be.
func upgrade(name, dir, namespace string, given map[string]any) error {
	files := tree{}
	err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		inside, _ := filepath.Rel(dir, path)
		files[chartDir+filepath.ToSlash(inside)] = text
		return err
	})
	if err != nil {
		return err
	}
	manifests, notes, err := files.template(name, namespace, given)
	if err != nil {
		return err
	}
	if strings.Contains(string(notes), "NO CLIENT CAN CONNECT") || strings.Contains(string(notes), "There is no") {
		return fmt.Errorf("the notes are %s", notes)
	}
	o, err := decode(manifests)
	if err != nil {
		return err
	}
	o.namespace = namespace
	chart := renderings()[3]
	g, err := findGate(o, chart.external)
	if err != nil {
		return err
	}
	return errors.Join(append(g.check(chart.external), sent(o, ""))...)
}

// TestQuickStart runs every command of docs/kubernetes.md, one after the other, as they stand.
func TestQuickStart(t *testing.T) {
	for _, name := range []string{"openssl", "sh", "base64"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Skipf("%s is not installed", name)
		}
	}
	text, err := os.ReadFile("../../../docs/kubernetes.md")
	if err != nil {
		t.Fatal(err)
	}
	work, cluster, programs := t.TempDir(), t.TempDir(), t.TempDir()
	p := newPKI("pgwicket")
	prepare(t, p, work, cluster, programs)
	script := "set -eu\n"
	for _, block := range regexp.MustCompile("(?ms)^```sh\n(.*?)^```$").FindAllStringSubmatch(string(text), -1) {
		script += block[1]
	}
	cmd := exec.Command("sh", "-x", "-c", script)
	cmd.Env = append(os.Environ(), "PATH="+programs+":"+os.Getenv("PATH"), clusterVariable+"="+cluster)
	cmd.Dir = work
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	arrived(t, cluster)
	revoked(t, p, filepath.Join(work, "ca.crl"))
}

// prepare makes the sources, the Secrets of cert-manager, and kubectl and helm.
func prepare(t *testing.T, p *pki, work, cluster, programs string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"kubectl", "helm"} {
		if err := os.Symlink(self, filepath.Join(programs, name)); err != nil {
			t.Fatal(err)
		}
	}
	ca := &tlstest.Pair{Key: p.ca.Key}
	client := p.ca.Client("app")
	files := map[string][]byte{
		filepath.Join(cluster, "pgwicket-ca/tls.crt"): p.ca.CertPEM(),
		filepath.Join(cluster, "pgwicket-ca/tls.key"): ca.KeyPEM(),
		filepath.Join(cluster, "app-client/tls.crt"):  client.CertPEM(),
		filepath.Join(work, "database-ca.crt"):        p.database.CertPEM(),
	}
	for name, text := range readTree(t) {
		files[filepath.Join(work, "deploy", name)] = text
	}
	for name, text := range files {
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// arrived: nothing that a Pod needs has been forgotten on the way.
func arrived(t *testing.T, cluster string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(cluster, "sent"))
	if err != nil {
		t.Fatal(err)
	}
	names := strings.Fields(string(text))
	for _, want := range []string{
		"shop/Certificate/pgwicket-ca", "shop/ConfigMap/pgwicket-crl", "shop/StatefulSet/postgres", "shop/Certificate/app",
		"gate/Certificate/pgwicket-ca", "gate/ConfigMap/pgwicket-crl", "gate/ConfigMap/pgwicket-database-ca", "gate/Deployment/pgwicket", "gate/Service/pgwicket",
	} {
		if !slices.Contains(names, want) {
			t.Errorf("%s has not come to the cluster, only %q", want, names)
		}
	}
}

// revoked: pgwicket takes the list that the quick start has made, and finds one entry in it.
func revoked(t *testing.T, p *pki, list string) {
	t.Helper()
	var err error
	if p.crl, err = os.ReadFile(list); err != nil {
		t.Fatal(err)
	}
	r := renderings()[1]
	g, err := r.examine(t, readTree(t), p, pgwicket(t))
	if err != nil {
		t.Fatal(err)
	}
	files, mode, err := g.files(r.external, p.text)
	if err != nil {
		t.Fatal(err)
	}
	volume := g.mount(t, mode)
	if err := volume.write(files); err != nil {
		t.Fatal(err)
	}
	out, err := g.command(pgwicket(t), "check", "--config", filepath.Join(volume.dir, "pgwicket.yaml")).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "revocation list CN=pgwicket CA, 1 entry, fresh until") {
		t.Errorf("%v\n%s", err, out)
	}
}
