package kubernetes_test

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// TestSchemaRefuses: each of these would be a gate that does not start, or one that is open.
func TestSchemaRefuses(t *testing.T) {
	files := readTree(t)
	for _, values := range []string{
		"acls: {allow: [10.0.0.0/8]}",
		"acl: {allow: 10.0.0.0/8}",
		"acl: {allow: [everybody]}",
		"acl: {allow: null}",
		"image: {repository: ''}",
		"image: {digest: sha256}",
		"image: {tag: 1}",
		"image: {pullPolicy: Sometimes}",
		"imagePullSecrets: [registry]",
		"imagePullSecrets: [{key: a}]",
		"tls: {secretName: ''}",
		"tls: {certFile: a}",
		"tls: {crlConfigMap: 1}",
		"tls: {certificate: {create: maybe}}",
		"tls: {certificate: {names: []}}",
		"tls: {certificate: {issuer: {kind: Company}}}",
		"tls: {certificate: {issuer: {name: ''}}}",
		"tls: {certificate: {issuer: {group: a}}}",
		"tls: {certificate: {dnsNames: db}}",
		"tls: {certificate: {dnsNames: [1]}}",
		"tls: {certificate: {duration: 90 days}}",
		"tls: {certificate: {renewBefore: 30}}",
		"backend: {host: ''}",
		"backend: {host: /run/postgresql}",
		"backend: {port: 0}",
		"backend: {port: 65536}",
		"backend: {port: '5432'}",
		"backend: {sslmode: verify}",
		"backend: {caConfigMap: [a]}",
		"backend: {user: a}",
		"drain: {delaySeconds: 15s}",
		"drain: {delaySeconds: -1}",
		"drain: {delaySeconds: 3601}",
		"drain: {timeoutSeconds: 0}",
		"drain: {timeoutSeconds: 86401}",
		"drain: {delay: 1}",
		"config: []",
		"config: {listen: []}",
		"config: {acl: {}}",
		"config: {admin: {address: ''}}",
		"config: {admin: 1}",
		"config: {limits: {drain_delay: 1s}}",
		"config: {limits: {drain_timeout: 1s}}",
		"config: {limits: 1}",
		"loadBalancers: [10.0.0.1]",
		"loadBalancers: 10.0.0.0/8",
		"loadBalancers: [1]",
		"service: {type: ExternalName}",
		"service: {port: 0}",
		"service: {name: a}",
		"service: {annotations: {a: 1}}",
		"admin: {port: 0}",
		"admin: {address: a}",
		"networkPolicy: {enabled: 1}",
		"networkPolicy: {clients: [a]}",
		"networkPolicy: {monitoring: {a: 1}}",
		"networkPolicy: {database: []}",
		"networkPolicy: {database: [{}]}",
		"networkPolicy: {database: [a]}",
		"networkPolicy: {to: []}",
		"autoscaling: {enabled: 1}",
		"autoscaling: {minReplicas: 0}",
		"autoscaling: {maxReplicas: 0}",
		"autoscaling: {averageUtilization: 0}",
		"autoscaling: {max: 1}",
		"replicas: -1",
		"replicas: two",
		"resources: []",
		"podAnnotations: {a: 1}",
		"nodeSelector: {a: 1}",
		"tolerations: {a: 1}",
		"tolerations: [a]",
		"replicaCount: 1",
	} {
		var given map[string]any
		if err := yaml.Unmarshal([]byte(values), &given); err != nil {
			t.Fatal(err)
		}
		section, _, _ := strings.Cut(values, ":")
		if _, _, err := files.template(release, namespace, given); err == nil || !strings.Contains(err.Error(), "schema") || !strings.Contains(err.Error(), section) {
			t.Errorf("%s: %v", values, err)
		}
	}
}

// TestSchemaKnowsEveryValue: a keyword that is misspelt is none, and a property that is misspelt checks nothing.
func TestSchemaKnowsEveryValue(t *testing.T) {
	files := readTree(t)
	var s, values map[string]any
	if err := json.Unmarshal(files[chartDir+"values.schema.json"], &s); err != nil {
		t.Fatal(err)
	}
	if err := yaml.UnmarshalStrict(files[chartDir+"values.yaml"], &values); err != nil {
		t.Fatal(err)
	}
	keywords(t, "", s)
	properties := slices.Sorted(maps.Keys(s["properties"].(map[string]any)))
	if want := slices.Sorted(maps.Keys(values)); !slices.Equal(slices.DeleteFunc(properties, func(p string) bool { return p == "global" }), want) {
		t.Errorf("the schema has %q, the values are %q", properties, want)
	}
}

func keywords(t *testing.T, where string, schema map[string]any) {
	known := []string{
		"$schema", "$ref", "type", "additionalProperties", "required", "definitions", "properties", "items", "pattern",
		"minimum", "maximum", "minLength", "minItems", "minProperties", "enum", "not", "description",
	}
	for _, keyword := range slices.Sorted(maps.Keys(schema)) {
		if !slices.Contains(known, keyword) {
			t.Errorf("%s: %q is no keyword", where, keyword)
		}
		inner, _ := schema[keyword].(map[string]any)
		switch keyword {
		case "items", "not", "additionalProperties":
			keywords(t, where+"/"+keyword, inner)
		case "properties", "definitions":
			for name, p := range inner {
				keywords(t, where+"/"+name, p.(map[string]any))
			}
		}
	}
}
