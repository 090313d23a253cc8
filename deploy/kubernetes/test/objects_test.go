package kubernetes_test

import (
	"bytes"
	"fmt"
	"regexp"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"
)

// issuer and certificate are what is used here of cert-manager's types; a key that is not used is unknown.
type issuer struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              struct {
		SelfSigned *struct{} `json:"selfSigned"`
		CA         *struct {
			SecretName string `json:"secretName"`
		} `json:"ca"`
	} `json:"spec"`
}

type certificate struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              struct {
		IsCA        bool            `json:"isCA"`
		CommonName  string          `json:"commonName"`
		SecretName  string          `json:"secretName"`
		DNSNames    []string        `json:"dnsNames"`
		Duration    metav1.Duration `json:"duration"`
		RenewBefore metav1.Duration `json:"renewBefore"`
		Usages      []string        `json:"usages"`
		PrivateKey  struct {
			Algorithm      string `json:"algorithm"`
			Size           int    `json:"size"`
			RotationPolicy string `json:"rotationPolicy"`
		} `json:"privateKey"`
		IssuerRef struct {
			Group string `json:"group"`
			Kind  string `json:"kind"`
			Name  string `json:"name"`
		} `json:"issuerRef"`
	} `json:"spec"`
}

// workload is what a StatefulSet and a Deployment have in common.
type workload struct {
	kind, name string
	replicas   *int32
	selector   *metav1.LabelSelector
	template   corev1.PodTemplateSpec
	claims     []string // volumes of volumeClaimTemplates
	service    string   // serviceName of a StatefulSet
	strategy   appsv1.DeploymentStrategy
}

// objects is what a rendering would bring into a cluster.
type objects struct {
	names        []string // Kind/name
	labels       []map[string]string
	namespace    string
	workloads    []workload
	configMaps   []corev1.ConfigMap
	services     []corev1.Service
	autoscalers  []autoscalingv2.HorizontalPodAutoscaler
	budgets      []policyv1.PodDisruptionBudget
	policies     []networkingv1.NetworkPolicy
	issuers      []issuer
	certificates []certificate
}

// decode reads manifests as strictly as the API server does with --validate=strict.
func decode(manifests []byte) (*objects, error) {
	o := &objects{}
	for _, text := range bytes.Split(append([]byte("\n"), manifests...), []byte("\n---\n")) {
		var meta metav1.PartialObjectMetadata
		if err := yaml.Unmarshal(text, &meta); err != nil {
			return nil, fmt.Errorf("%w in\n%s", err, text)
		}
		if meta.Kind == "" && meta.APIVersion == "" && len(bytes.TrimSpace(withoutComments(text))) == 0 {
			continue
		}
		if err := o.add(meta, text); err != nil {
			return nil, fmt.Errorf("%s/%s: %w", meta.Kind, meta.Name, err)
		}
	}
	return o, nil
}

func withoutComments(text []byte) []byte {
	return regexp.MustCompile(`(?m)^\s*#.*$`).ReplaceAll(text, nil)
}

func (o *objects) add(meta metav1.PartialObjectMetadata, text []byte) error {
	name := meta.Kind + "/" + meta.Name
	switch {
	case meta.Name == "":
		return fmt.Errorf("has no name")
	case slices.Contains(o.names, name):
		return fmt.Errorf("is there twice")
	case len(o.names) > 0 && meta.Namespace != o.namespace:
		return fmt.Errorf("is in namespace %q, others are in %q", meta.Namespace, o.namespace)
	}
	o.names, o.labels, o.namespace = append(o.names, name), append(o.labels, meta.Labels), meta.Namespace
	switch meta.APIVersion + " " + meta.Kind {
	case "v1 ConfigMap":
		return into(&o.configMaps, text)
	case "v1 Service":
		return into(&o.services, text)
	case "apps/v1 Deployment":
		return o.deployment(text)
	case "apps/v1 StatefulSet":
		return o.statefulSet(text)
	case "autoscaling/v2 HorizontalPodAutoscaler":
		return into(&o.autoscalers, text)
	case "policy/v1 PodDisruptionBudget":
		return into(&o.budgets, text)
	case "networking.k8s.io/v1 NetworkPolicy":
		return into(&o.policies, text)
	case "cert-manager.io/v1 Issuer":
		return into(&o.issuers, text)
	case "cert-manager.io/v1 Certificate":
		return into(&o.certificates, text)
	}
	return fmt.Errorf("there is no %s %s", meta.APIVersion, meta.Kind)
}

func into[T any](list *[]T, text []byte) error {
	var one T
	err := unmarshal(text, &one)
	*list = append(*list, one)
	return err
}

// unmarshal is yaml.UnmarshalStrict, but that it knows small letters from capitals, as the API server does.
func unmarshal(text []byte, to any) error {
	data, err := yaml.YAMLToJSONStrict(text)
	if err != nil {
		return err
	}
	strict, err := kjson.UnmarshalStrict(data, to)
	if err == nil && len(strict) > 0 {
		err = strict[0]
	}
	return err
}

func (o *objects) deployment(text []byte) error {
	var d appsv1.Deployment
	err := unmarshal(text, &d)
	o.workloads = append(o.workloads, workload{d.Kind, d.Name, d.Spec.Replicas, d.Spec.Selector, d.Spec.Template, nil, "", d.Spec.Strategy})
	return err
}

func (o *objects) statefulSet(text []byte) error {
	var s appsv1.StatefulSet
	if err := unmarshal(text, &s); err != nil {
		return err
	}
	w := workload{s.Kind, s.Name, s.Spec.Replicas, s.Spec.Selector, s.Spec.Template, nil, s.Spec.ServiceName, appsv1.DeploymentStrategy{}}
	for _, c := range s.Spec.VolumeClaimTemplates {
		if len(c.Spec.AccessModes) == 0 || c.Spec.Resources.Requests.Storage().IsZero() {
			return fmt.Errorf("%s asks for no storage", c.Name)
		}
		w.claims = append(w.claims, c.Name)
	}
	o.workloads = append(o.workloads, w)
	return nil
}

func (o *objects) configMap(name string) *corev1.ConfigMap {
	for i := range o.configMaps {
		if o.configMaps[i].Name == name {
			return &o.configMaps[i]
		}
	}
	return nil
}

// gate returns the one workload with pgwicket in it, and its container.
func (o *objects) gate() (*workload, *corev1.Container, error) {
	for i := range o.workloads {
		w := &o.workloads[i]
		for _, list := range [][]corev1.Container{w.template.Spec.Containers, w.template.Spec.InitContainers} {
			for j := range list {
				if list[j].Name == "pgwicket" {
					return w, &list[j], nil
				}
			}
		}
	}
	return nil, nil, fmt.Errorf("there is no container pgwicket among %s", strings.Join(o.names, ", "))
}
