package kubernetes_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"helm.sh/helm/v3/pkg/lint"
	"helm.sh/helm/v3/pkg/lint/support"
	"sigs.k8s.io/yaml"
)

// rendering is one way to use what is in deploy.
type rendering struct {
	name     string
	dir      string // of a kustomization, or
	values   string // for the chart
	external external
	warnings string // what pgwicket check says of it besides
}

const (
	byHand   = "pgwicket-crl"
	hostless = `backend\.host: (there is no (directory|socket)|the socket .* cannot be looked at|every account of this machine can reach) .*`
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
		{name: "chart without", external: bare, warnings: `tls\.crl_file: .*|tls: .*revo.*`, values: bareValues},
		{name: "chart with everything", external: own, values: everything},
	}
}

const bareValues = `
tls: {secretName: ours, certificate: {create: false}, crlConfigMap: ""}
acl: {allow: [10.244.0.0/16]}
service: {type: ClusterIP}
networkPolicy: {enabled: false}
autoscaling: {enabled: false}
replicas: 3
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
service: {type: LoadBalancer, port: 5432, annotations: {service.beta.kubernetes.io/aws-load-balancer-proxy-protocol: "*"}}
admin: {port: 11000}
networkPolicy:
  enabled: true
  clients: {pgwicket-clients: "true"}
  monitoring: {kubernetes.io/metadata.name: monitoring}
  database: [{ipBlock: {cidr: 10.30.0.0/24}}]
autoscaling: {enabled: true, minReplicas: 3, maxReplicas: 20, averageUtilization: 50}
replicas: 2
resources: {requests: {cpu: "1", memory: 256Mi}, limits: {memory: 2Gi}}
podAnnotations: {}
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
		manifests, err := files.kustomize(r.dir)
		if err != nil {
			return nil, err
		}
		return decode(manifests)
	}
	values := map[string]any{}
	if err := yaml.UnmarshalStrict([]byte(r.values), &values); err != nil {
		return nil, err
	}
	manifests, notes, err := files.template(release, namespace, values)
	if err != nil {
		return nil, err
	}
	if !strings.Contains(string(notes), "The Pods start when these are in namespace "+namespace) || strings.Contains(string(notes), "<no value>") {
		return nil, fmt.Errorf("the notes are %s", notes)
	}
	o, err := decode(manifests)
	if err == nil {
		o.namespace = namespace
	}
	return o, err
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
	expected := `listen\[0\]\.address: 0\.0\.0\.0:5432 listens on every network .*|admin\.address: .* is not a loopback address.*`
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
		{0o644, 65532, "has mode 0644, others than root and a reading group have access"},
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
		{nil, []string{"NOBODY CAN CONNECT", "Secret/pgwicket-server: tls.crt, tls.key, ca.crt (made by cert-manager)", "ConfigMap/pgwicket-crl: ca.crl", "get service shop-pgwicket"}, []string{"no revocation list", "no NetworkPolicy"}},
		{
			map[string]any{"acl": map[string]any{"allow": []any{"10.0.0.0/8"}}, "tls": map[string]any{"crlConfigMap": ""}, "networkPolicy": map[string]any{"enabled": false}, "service": map[string]any{"type": "ClusterIP"}},
			[]string{"There is no revocation list", "There is no NetworkPolicy"},
			[]string{"NOBODY", "ca.crl", "get service"},
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
