package kubernetes_test

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"path"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

// settings is what of pgwicket.yaml the manifests must agree with; what it means is for pgwicket check to say.
type settings struct {
	Listen []struct {
		Address           string         `json:"address"`
		ProxyProtocolFrom []netip.Prefix `json:"proxy_protocol_from"`
	} `json:"listen"`
	Backend struct {
		Host    string `json:"host"`
		Port    int    `json:"port"`
		SSLMode string `json:"sslmode"`
	} `json:"backend"`
	Limits struct {
		DrainDelay   string `json:"drain_delay"`
		DrainTimeout string `json:"drain_timeout"`
	} `json:"limits"`
	Admin struct {
		Address string `json:"address"`
	} `json:"admin"`
}

// gate is pgwicket as a rendering has it: the container, and all that the Pod gives to it.
type gate struct {
	objects   *objects
	workload  *workload
	container *corev1.Container
	config    string // the path of pgwicket.yaml in the container
	settings  settings
	listen    int // ports
	admin     int
}

// external is what the manifests count on and do not bring: kind and name, and the keys.
type external map[string][]string

// findGate follows the Pod from the container to the text of pgwicket.yaml.
func findGate(o *objects, ext external) (*gate, error) {
	w, c, err := o.gate()
	if err != nil {
		return nil, err
	}
	g := &gate{objects: o, workload: w, container: c}
	if len(c.Command) != 4 || !slices.Equal(c.Command[:3], []string{"pgwicket", "serve", "--config"}) || c.Args != nil {
		return nil, fmt.Errorf("the container runs %q %q", c.Command, c.Args)
	}
	g.config = c.Command[3]
	files, _, err := g.files(ext, func(kind, name, key string) []byte { return nil })
	if err != nil {
		return nil, err
	}
	text, ok := files[path.Base(g.config)]
	if !ok {
		return nil, fmt.Errorf("%s is in no volume", g.config)
	}
	if err := yaml.Unmarshal(text, &g.settings); err != nil {
		return nil, err
	}
	return g, g.ports()
}

func (g *gate) ports() error {
	if len(g.settings.Listen) != 1 {
		return fmt.Errorf("listen has %d addresses", len(g.settings.Listen))
	}
	listen, err1 := netip.ParseAddrPort(g.settings.Listen[0].Address)
	admin, err2 := netip.ParseAddrPort(g.settings.Admin.Address)
	g.listen, g.admin = int(listen.Port()), int(admin.Port())
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	if !listen.Addr().IsUnspecified() || !admin.Addr().IsUnspecified() {
		return fmt.Errorf("nobody outside of the Pod reaches %s and %s", listen, admin)
	}
	return nil
}

// volume returns the volume that holds pgwicket.yaml.
func (g *gate) volume() (*corev1.Volume, error) {
	for _, m := range g.container.VolumeMounts {
		if m.MountPath != path.Dir(g.config) {
			continue
		}
		if m.SubPath != "" || m.SubPathExpr != "" {
			return nil, fmt.Errorf("%s is mounted by subPath, which never changes", m.Name)
		}
		for i := range g.workload.template.Spec.Volumes {
			if v := &g.workload.template.Spec.Volumes[i]; v.Name == m.Name {
				return v, nil
			}
		}
	}
	return nil, fmt.Errorf("nothing is mounted at %s", path.Dir(g.config))
}

// files is the contents of that volume as the kubelet would make them, and their mode; text says what the keys
// hold that are not in the manifests.
func (g *gate) files(ext external, text func(kind, name, key string) []byte) (map[string][]byte, *int32, error) {
	v, err := g.volume()
	if err != nil {
		return nil, nil, err
	}
	if v.Projected == nil {
		return nil, nil, fmt.Errorf("volume %s is not projected: its files would not change in one step", v.Name)
	}
	files := map[string][]byte{}
	for _, s := range v.Projected.Sources {
		var kind, name string
		var items []corev1.KeyToPath
		var optional *bool
		switch {
		case s.ConfigMap != nil:
			kind, name, items, optional = "ConfigMap", s.ConfigMap.Name, s.ConfigMap.Items, s.ConfigMap.Optional
		case s.Secret != nil:
			kind, name, items, optional = "Secret", s.Secret.Name, s.Secret.Items, s.Secret.Optional
		default:
			return nil, nil, fmt.Errorf("volume %s has a source that is neither ConfigMap nor Secret", v.Name)
		}
		if optional != nil {
			return nil, nil, fmt.Errorf("%s/%s is optional: the gate would start without it", kind, name)
		}
		if err := g.objects.project(files, kind, name, items, ext, text); err != nil {
			return nil, nil, err
		}
	}
	return files, v.Projected.DefaultMode, nil
}

// project puts one source into the files of a volume.
func (o *objects) project(files map[string][]byte, kind, name string, items []corev1.KeyToPath, ext external, text func(kind, name, key string) []byte) error {
	have := map[string][]byte{}
	for _, key := range o.keys(kind, name, ext) {
		have[key] = text(kind, name, key)
		if m := o.configMap(name); kind == "ConfigMap" && m != nil {
			have[key] = []byte(m.Data[key])
		}
	}
	if len(have) == 0 {
		return fmt.Errorf("there is no %s/%s", kind, name)
	}
	if len(items) == 0 {
		for key := range have {
			items = append(items, corev1.KeyToPath{Key: key, Path: key})
		}
	}
	for _, i := range items {
		if _, ok := have[i.Key]; !ok {
			return fmt.Errorf("%s/%s has no %s", kind, name, i.Key)
		}
		if _, ok := files[i.Path]; ok {
			return fmt.Errorf("%s comes from two sources", i.Path)
		}
		files[i.Path] = have[i.Key]
	}
	return nil
}

// keys is what a ConfigMap or Secret holds, whoever makes it.
func (o *objects) keys(kind, name string, ext external) (keys []string) {
	if m := o.configMap(name); kind == "ConfigMap" && m != nil {
		for key := range m.Data {
			keys = append(keys, key)
		}
		return keys
	}
	for _, c := range o.certificates {
		if kind == "Secret" && c.Spec.SecretName == name {
			return []string{"ca.crt", "tls.crt", "tls.key"} // cert-manager's
		}
	}
	return ext[kind+"/"+name]
}

// grace is how long the gate may take to stop by its own word: what it tells systemd, too.
func (g *gate) grace() (time.Duration, error) {
	delay, err1 := time.ParseDuration(cmp.Or(g.settings.Limits.DrainDelay, "0s"))
	timeout, err2 := time.ParseDuration(cmp.Or(g.settings.Limits.DrainTimeout, "30s"))
	return delay + timeout + 10*time.Second, errors.Join(err1, err2)
}

// onTCP reports whether the database is elsewhere.
func (g *gate) onTCP() bool { return !strings.HasPrefix(g.settings.Backend.Host, "/") }

func (g *gate) selects(s *metav1.LabelSelector) bool {
	if s == nil || len(s.MatchLabels) == 0 {
		return false
	}
	selector, err := metav1.LabelSelectorAsSelector(s)
	return err == nil && selector.Matches(labelSet(g.workload.template.Labels))
}
