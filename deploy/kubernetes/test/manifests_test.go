package kubernetes_test

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/lint"
	"helm.sh/helm/v3/pkg/lint/support"
	"sigs.k8s.io/kustomize/api/types"
	"sigs.k8s.io/yaml"
)

// rendering is one way to use what is in deploy.
type rendering struct {
	name     string
	dir      string // of a kustomization, or
	values   string // for the chart
	release  string // its name; default: shop
	external external
	warnings string // what pgwicket check says of it besides
}

const (
	byHand   = "pgwicket-crl"
	hostless = `backend\.host: (there is no (directory|socket)|the socket .* is not accessible|every account on this machine can connect to) .*`
)

func renderings() []rendering {
	gateway := external{"ConfigMap/" + byHand: {"ca.crl"}, "ConfigMap/pgwicket-database-ca": {"ca.crt"}, "Issuer/pgwicket-ca": {"ca"}}
	whole := external{"ConfigMap/" + byHand: {"ca.crl"}, "ConfigMap/pgwicket-database-ca": {"ca.crt"}}
	sidecar := external{"ConfigMap/" + byHand: {"ca.crl"}, "Secret/postgres-password": {"password"}}
	bare := external{"Secret/ours": {"tls.crt", "tls.key", "ca.crt"}, "ConfigMap/pgwicket-database-ca": {"ca.crt"}}
	own := external{"ConfigMap/lists": {"ca.crl"}, "ConfigMap/their-ca": {"ca.crt"}, "ClusterIssuer/company": {"ca"}}
	return []rendering{
		{name: "gateway", dir: "kubernetes/gateway", external: gateway},
		{name: "examples/gateway", dir: "kubernetes/examples/gateway", external: whole},
		{name: "examples/sidecar", dir: "kubernetes/examples/sidecar", external: sidecar, warnings: hostless},
		{name: "chart", external: gateway, warnings: `acl\.allow: .*`},
		{name: "chart without", release: "pgwicket", external: bare, warnings: `tls\.crl_file: .*|tls: .*revo.*`, values: bareValues},
		{name: "chart with everything", external: own, values: everything},
	}
}

const bareValues = `
tls: {secretName: ours, certificate: {create: false}, crlConfigMap: ""}
acl: {allow: [10.244.0.0/16]}
service: {type: ClusterIP}
networkPolicy: {enabled: false}
autoscaling: {enabled: false}
`

const everything = `
image: {repository: registry.example.com/pgwicket, tag: v1.2.3, pullPolicy: Always}
imagePullSecrets: [{name: registry}]
tls:
  secretName: gate
  certificate:
    create: true
    issuer: {kind: ClusterIssuer, name: company}
    dnsNames: [db.example.com]
    duration: 720h
    renewBefore: 240h
  crlConfigMap: lists
acl:
  allow: [10.244.0.0/16, 10.20.0.0/16]
  deny: [10.20.66.0/24]
  rules: [{name: applications, action: allow, users: [samename]}]
backend: {host: db.example.com, port: 6432, sslmode: verify-full, caConfigMap: their-ca}
drain: {delaySeconds: 20, timeoutSeconds: 600}
config:
  tls: {min_protocol_version: TLSv1.3}
  limits: {max_connections: 2000}
  log: {level: debug}
loadBalancers: [172.31.0.0/24]
service:
  type: LoadBalancer
  port: 5432
  annotations:
    service.beta.kubernetes.io/aws-load-balancer-type: external
    service.beta.kubernetes.io/aws-load-balancer-nlb-target-type: ip
    service.beta.kubernetes.io/aws-load-balancer-proxy-protocol: "*"
admin: {port: 11000}
networkPolicy:
  enabled: true
  clients: {pgwicket-clients: "true"}
  monitoring: {kubernetes.io/metadata.name: monitoring}
  database: [{ipBlock: {cidr: 10.30.0.0/24}}]
autoscaling: {enabled: true, minReplicas: 3, maxReplicas: 20, averageUtilization: 50}
replicas: 2
resources: {requests: {cpu: "1", memory: 256Mi}, limits: {memory: 2Gi}}
podAnnotations: {example.com/team: databases}
nodeSelector: {kubernetes.io/os: linux}
tolerations: [{key: gates, operator: Exists, effect: NoSchedule}]
`

const (
	release   = "shop"
	namespace = "gates"
)

// objects renders and decodes.
func (r *rendering) objects(files tree) (*objects, error) {
	if r.dir != "" {
		if err := r.sources(files); err != nil {
			return nil, err
		}
		manifests, err := files.kustomize(r.dir)
		if err != nil {
			return nil, err
		}
		return decode(manifests)
	}
	if err := files.checkChart(); err != nil {
		return nil, err
	}
	values := map[string]any{}
	if err := yaml.UnmarshalStrict([]byte(r.values), &values); err != nil {
		return nil, err
	}
	manifests, notes, err := files.template(cmp.Or(r.release, release), namespace, values)
	if err != nil {
		return nil, err
	}
	if !strings.Contains(string(notes), "The Pods start when these exist in namespace "+namespace) || strings.Contains(string(notes), "<no value>") {
		return nil, fmt.Errorf("the notes are %s", notes)
	}
	o, err := decode(manifests)
	if err != nil {
		return nil, err
	}
	o.namespace = namespace
	if r.values == everything {
		err = o.everythingArrives()
	}
	return o, errors.Join(err, o.labelled())
}

// sources reads the files of a kustomization one by one, for what a patch takes away has been there before.
func (r *rendering) sources(files tree) error {
	for _, name := range slices.Sorted(maps.Keys(files)) {
		switch base := path.Base(name); {
		case !r.uses(name) || base == "pgwicket.yaml" || path.Ext(base) != ".yaml":
		case base == "kustomization.yaml":
			var k types.Kustomization
			if err := unmarshal(files[name], &k); err != nil || k.Kind == "" || k.APIVersion == "" {
				return fmt.Errorf("%s is a %q of %q: %w", name, k.Kind, k.APIVersion, err)
			}
		default:
			o, err := decode(files[name])
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			for _, c := range o.certificates {
				if !c.Spec.IsCA && c.Spec.DNSNames == nil {
					return fmt.Errorf("%s: a certificate without a name", name)
				}
			}
		}
	}
	return nil
}

// checkChart is for what helm lint does not ask.
func (f tree) checkChart() error {
	var m chart.Metadata
	err := unmarshal(f[chartDir+"Chart.yaml"], &m)
	if err != nil || m.APIVersion != chart.APIVersionV2 || m.Type != "application" || m.Description == "" || m.AppVersion == "" || m.KubeVersion == "" || m.Icon == "" {
		return fmt.Errorf("Chart.yaml has %+v: %w", m, err)
	}
	return nil
}

// labelled: helm and people find by these labels what belongs together.
func (o *objects) labelled() error {
	for i, name := range o.names {
		for _, key := range []string{"app.kubernetes.io/name", "app.kubernetes.io/instance", "app.kubernetes.io/version", "app.kubernetes.io/managed-by", "helm.sh/chart"} {
			if o.labels[i][key] == "" {
				return fmt.Errorf("%s has no label %s", name, key)
			}
		}
	}
	return nil
}

// everythingArrives looks for the values that nothing else depends on.
func (o *objects) everythingArrives() error {
	w, c, err := o.gate()
	if err != nil {
		return err
	}
	pod := w.template.Spec
	switch {
	case c.Image != "registry.example.com/pgwicket:v1.2.3" || c.ImagePullPolicy != "Always" || len(pod.ImagePullSecrets) != 1:
		return fmt.Errorf("the image is %s, %s", c.Image, c.ImagePullPolicy)
	case len(pod.NodeSelector) != 1 || len(pod.Tolerations) != 1 || w.template.Annotations["example.com/team"] != "databases":
		return fmt.Errorf("the Pod is %+v", w.template)
	case w.name != release+"-pgwicket":
		return fmt.Errorf("the Deployment is %s", w.name)
	case len(o.certificates) != 1 || !slices.Contains(o.certificates[0].Spec.DNSNames, "db.example.com"):
		return fmt.Errorf("the certificates are %+v", o.certificates)
	}
	return nil
}

// examine is everything that can be found out about a rendering without a cluster.
func (r *rendering) examine(t *testing.T, files tree, p *pki, binary string) (*gate, error) {
	o, err := r.objects(files)
	if err != nil {
		return nil, err
	}
	g, err := findGate(o, r.external)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(g.check(r.external)...); err != nil {
		return nil, err
	}
	return g, g.pgwicketCheck(t, r, p, binary)
}

// pgwicketCheck asks pgwicket itself about the files of its volume.
func (g *gate) pgwicketCheck(t *testing.T, r *rendering, p *pki, binary string) error {
	files, mode, err := g.files(r.external, p.text)
	if err != nil {
		return err
	}
	volume := g.mount(t, mode)
	if err := volume.write(files); err != nil {
		return err
	}
	out, err := g.command(binary, "check", "--config", filepath.Join(volume.dir, filepath.Base(g.config))).CombinedOutput()
	if err != nil {
		return fmt.Errorf("pgwicket check: %w\n%s", err, out)
	}
	expected := `listen\[0\]\.address: 0\.0\.0\.0:5432 listens on all networks .*|admin\.address: .* is not a loopback address.*|listen\[0\]\.address: .* is in use by another process.*`
	if r.warnings != "" {
		expected += "|" + r.warnings
	}
	known := regexp.MustCompile(`: warning: (` + expected + `)$`)
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, ": warning: ") && !known.MatchString(strings.TrimSpace(line)) {
			return fmt.Errorf("pgwicket check: %s", line)
		}
	}
	return nil
}

func TestManifests(t *testing.T) {
	files, binary := readTree(t), pgwicket(t)
	for _, r := range renderings() {
		t.Run(r.name, func(t *testing.T) {
			if _, err := r.examine(t, files, newPKI("pgwicket"), binary); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestKeyOfTheKubelet: without fsGroup or with the kubelet's usual mode the gate must not start, and it says why.
func TestKeyOfTheKubelet(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can make files that are root's, as the kubelet does")
	}
	r := renderings()[0]
	o, err := r.objects(readTree(t))
	if err != nil {
		t.Fatal(err)
	}
	g, err := findGate(o, r.external)
	if err != nil {
		t.Fatal(err)
	}
	p, binary := newPKI("pgwicket"), pgwicket(t)
	files, _, err := g.files(r.external, p.text)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		mode  int32
		group int
		says  string
	}{
		{0o440, 65532, " is valid"},
		{0o640, 65532, " is valid"},
		{0o400, 65532, " is valid"}, // fsGroup adds 0440
		{0o644, 65532, "has mode 0644: only root may write it and only its group may read it"},
		{0o440, 0, "permission denied"},
	} {
		volume := g.mount(t, &c.mode)
		volume.group = c.group
		if err := volume.write(files); err != nil {
			t.Fatal(err)
		}
		out, _ := g.command(binary, "check", "--config", filepath.Join(volume.dir, "pgwicket.yaml")).CombinedOutput()
		if !strings.Contains(string(out), c.says) {
			t.Errorf("mode %04o, group %d: %s", c.mode, c.group, out)
		}
	}
}

func TestChartIsLinted(t *testing.T) {
	for _, r := range renderings() {
		if r.dir != "" {
			continue
		}
		values := map[string]any{}
		if err := yaml.Unmarshal([]byte(r.values), &values); err != nil {
			t.Fatal(err)
		}
		for _, m := range lint.AllWithKubeVersion("../../helm/pgwicket", values, namespace, nil).Messages {
			if m.Severity > support.UnknownSev {
				t.Errorf("%s: %v", r.name, m)
			}
		}
	}
}

// TestNotes: what makes an installation useless or weak is said when it is made.
func TestNotes(t *testing.T) {
	files := readTree(t)
	for _, c := range []struct {
		values map[string]any
		says   []string
		not    []string
	}{
		{nil, []string{"NO CLIENT CAN CONNECT", "Secret/pgwicket-server: tls.crt, tls.key, ca.crt (made by cert-manager)", "ConfigMap/pgwicket-crl: ca.crl", "get service shop-pgwicket"}, []string{"no revocation list", "no NetworkPolicy"}},
		{
			map[string]any{"acl": map[string]any{"allow": []any{"10.0.0.0/8"}}, "tls": map[string]any{"crlConfigMap": ""}, "networkPolicy": map[string]any{"enabled": false}, "service": map[string]any{"type": "ClusterIP"}},
			[]string{"There is no revocation list", "There is no NetworkPolicy"},
			[]string{"NO CLIENT", "ca.crl", "get service"},
		},
	} {
		_, notes, err := files.template(release, namespace, c.values)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range slices.Concat(c.says, c.not) {
			if strings.Contains(string(notes), s) != slices.Contains(c.says, s) {
				t.Errorf("%q in\n%s", s, notes)
			}
		}
	}
}
