package kubernetes_test

import (
	"fmt"
	"maps"
	"net/netip"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
)

type labelSet = labels.Set

// problems is what is wrong with a rendering.
type problems []error

func (p *problems) addf(format string, args ...any) { *p = append(*p, fmt.Errorf(format, args...)) }

// check compares everything that is said twice, and asks for what must not be missing.
func (g *gate) check(ext external) problems {
	var p problems
	g.checkNames(&p)
	for i := range g.objects.workloads {
		g.objects.checkWorkload(&p, &g.objects.workloads[i], ext)
	}
	g.checkContainer(&p)
	g.checkProbes(&p)
	g.checkGrace(&p)
	g.checkServices(&p)
	g.checkPolicies(&p)
	g.checkCertificates(&p, ext)
	if g.onTCP() {
		g.checkGateway(&p)
	} else {
		g.checkSidecar(&p)
	}
	return p
}

// checkNames: a name with a hash in it would be a new one with each change, and every Pod made anew for it.
func (g *gate) checkNames(p *problems) {
	for _, m := range g.objects.configMaps {
		if regexp.MustCompile(`-[0-9a-z]{10}$`).MatchString(m.Name) {
			p.addf("ConfigMap %s has a hash in its name", m.Name)
		}
	}
	if !strings.Contains(path.Base(g.container.Image), ":") && g.objects.namespace != "" {
		p.addf("image %q has no tag", g.container.Image)
	}
	for _, s := range g.objects.services {
		for key := range s.Annotations {
			if _, ok := proxyAnnotations()[key]; !ok {
				p.addf("who reads the annotation %s?", key)
			}
		}
	}
}

// checkWorkload: within a Pod all names lead somewhere, and nothing is there for nobody.
func (o *objects) checkWorkload(p *problems, w *workload, ext external) {
	if w.selector == nil || len(w.selector.MatchLabels) == 0 || !matches(w.selector.MatchLabels, w.template.Labels) {
		p.addf("%s %s selects %v, its Pods are %v", w.kind, w.name, w.selector, w.template.Labels)
	}
	if w.kind == "StatefulSet" && !slices.Contains(o.names, "Service/"+w.service) {
		p.addf("there is no Service %q", w.service)
	}
	if mount := w.template.Spec.AutomountServiceAccountToken; mount == nil || *mount {
		p.addf("%s gets a token of the API server", w.name)
	}
	unused := map[string]bool{}
	for _, name := range w.claims {
		unused[name] = true
	}
	for _, v := range w.template.Spec.Volumes {
		unused[v.Name] = true
		if v.VolumeSource == (corev1.VolumeSource{}) {
			p.addf("volume %s is of no kind", v.Name)
		}
		if v.ConfigMap != nil && o.configMap(v.ConfigMap.Name) == nil {
			p.addf("volume %s is of ConfigMap %q, which is not there", v.Name, v.ConfigMap.Name)
		}
	}
	if len(unused) != len(w.claims)+len(w.template.Spec.Volumes) {
		p.addf("%s has two volumes of one name", w.name)
	}
	all := slices.Concat(w.template.Spec.InitContainers, w.template.Spec.Containers)
	names := map[string]bool{}
	for i := range all {
		o.checkMounts(p, &all[i], unused)
		o.checkEnvironment(p, &all[i], ext)
		names[all[i].Name] = true
	}
	if len(names) != len(all) {
		p.addf("%s has two containers of one name", w.name)
	}
	for name, un := range unused {
		if un {
			p.addf("nobody mounts volume %s", name)
		}
	}
}

func (o *objects) checkMounts(p *problems, c *corev1.Container, unused map[string]bool) {
	if c.Image == "" {
		p.addf("container %s has no image", c.Name)
	}
	for _, m := range c.VolumeMounts {
		if _, ok := unused[m.Name]; !ok || !path.IsAbs(m.MountPath) {
			p.addf("container %s mounts %q at %q", c.Name, m.Name, m.MountPath)
		}
		unused[m.Name] = false
	}
	restricted(p, c)
}

// restricted is what a namespace with pod-security.kubernetes.io/enforce: restricted asks for, and a file system
// that cannot be written to.
func restricted(p *problems, c *corev1.Container) {
	s := c.SecurityContext
	if s == nil {
		p.addf("container %s has no securityContext", c.Name)
		return
	}
	for what, ok := range map[string]bool{
		"runAsNonRoot":             isTrue(s.RunAsNonRoot),
		"runAsUser":                s.RunAsUser != nil && *s.RunAsUser > 0,
		"runAsGroup":               s.RunAsGroup != nil && *s.RunAsGroup > 0,
		"readOnlyRootFilesystem":   isTrue(s.ReadOnlyRootFilesystem),
		"allowPrivilegeEscalation": s.AllowPrivilegeEscalation != nil && !*s.AllowPrivilegeEscalation,
		"capabilities":             s.Capabilities != nil && slices.Equal(s.Capabilities.Drop, []corev1.Capability{"ALL"}) && s.Capabilities.Add == nil,
		"seccompProfile":           s.SeccompProfile != nil && s.SeccompProfile.Type == corev1.SeccompProfileTypeRuntimeDefault,
		"privileged":               s.Privileged == nil,
	} {
		if !ok {
			p.addf("container %s is not restricted: %s", c.Name, what)
		}
	}
}

func isTrue(b *bool) bool { return b != nil && *b }

func (o *objects) checkEnvironment(p *problems, c *corev1.Container, ext external) {
	for _, e := range c.Env {
		switch {
		case e.ValueFrom == nil:
			p.addf("container %s: %s has no value", c.Name, e.Name)
		case e.ValueFrom.SecretKeyRef == nil || e.Name != "POSTGRES_PASSWORD":
			p.addf("container %s: %s is not from a Secret", c.Name, e.Name)
		default:
			ref := e.ValueFrom.SecretKeyRef
			if !slices.Contains(o.keys("Secret", ref.Name, ext), ref.Key) {
				p.addf("there is no Secret/%s with key %s", ref.Name, ref.Key)
			}
		}
	}
}

func (g *gate) checkContainer(p *problems) {
	pod := g.workload.template.Spec
	if pod.SecurityContext == nil || pod.SecurityContext.FSGroup == nil {
		p.addf("without fsGroup nobody but root can read the key")
	}
	var ports []int
	for _, port := range g.container.Ports {
		ports = append(ports, int(port.ContainerPort))
		if port.Name == "" {
			p.addf("port %d has no name", port.ContainerPort)
		}
	}
	if !slices.Equal(ports, []int{g.listen, g.admin}) {
		p.addf("the container has ports %v, pgwicket listens on %d and %d", ports, g.listen, g.admin)
	}
	for _, m := range g.container.VolumeMounts {
		if !m.ReadOnly {
			p.addf("%s is mounted for writing", m.Name)
		}
	}
	r := g.container.Resources
	if r.Requests.Cpu().IsZero() || r.Requests.Memory().IsZero() || r.Limits.Memory().IsZero() || !r.Limits.Cpu().IsZero() {
		p.addf("resources are %v", r)
	}
	a := g.workload.template.Annotations
	if a["prometheus.io/scrape"] != "true" || a["prometheus.io/port"] != fmt.Sprint(g.admin) {
		p.addf("Prometheus is told %v", a)
	}
}

// number resolves a port of the gate's container.
func (g *gate) number(port intstr.IntOrString) int {
	for _, c := range g.container.Ports {
		if port.Type == intstr.String && c.Name == port.StrVal {
			return int(c.ContainerPort)
		}
	}
	return port.IntValue()
}

func (g *gate) checkProbes(p *problems) {
	c := g.container
	for where, probe := range map[string]*corev1.Probe{"/startupz": c.StartupProbe, "/livez": c.LivenessProbe, "/readyz": c.ReadinessProbe} {
		if probe == nil || probe.HTTPGet == nil || probe.HTTPGet.Path != where || g.number(probe.HTTPGet.Port) != g.admin || probe.HTTPGet.Scheme != "" {
			p.addf("the probe for %s is %v", where, probe)
		}
	}
	// A million revoked certificates take two seconds to load.
	if s := c.StartupProbe; s != nil && max(s.PeriodSeconds, 1)*s.FailureThreshold < 30 {
		p.addf("a start may take %d seconds", s.PeriodSeconds*s.FailureThreshold)
	}
	if c.Lifecycle != nil {
		p.addf("a preStop takes from the grace period")
	}
}

// checkGrace: whoever is still in when it has passed is cut off in the middle of a transaction.
func (g *gate) checkGrace(p *problems) {
	want, err := g.grace()
	seconds := g.workload.template.Spec.TerminationGracePeriodSeconds
	if err != nil || seconds == nil {
		p.addf("terminationGracePeriodSeconds is not set (%v)", err)
		return
	}
	grace := time.Duration(*seconds) * time.Second
	if g.onTCP() && grace != want || !g.onTCP() && grace < want+time.Minute {
		p.addf("terminationGracePeriodSeconds are %v, the gate needs %v", grace, want)
	}
}

func (g *gate) checkServices(p *problems) {
	if len(g.objects.services) != 1 {
		p.addf("%d Services", len(g.objects.services))
	}
	for _, s := range g.objects.services {
		if len(s.Spec.Selector) == 0 || !matches(s.Spec.Selector, g.workload.template.Labels) {
			p.addf("Service %s selects %v, the Pods are %v", s.Name, s.Spec.Selector, g.workload.template.Labels)
		}
		if len(s.Spec.Ports) != 1 || s.Spec.Ports[0].Port != 5432 || g.number(s.Spec.Ports[0].TargetPort) != g.listen {
			p.addf("Service %s has the ports %v", s.Name, s.Spec.Ports)
		}
		outside := s.Spec.Type == corev1.ServiceTypeLoadBalancer
		if outside != (s.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal) {
			p.addf("Service %s is a %s with externalTrafficPolicy %q: nodes would stand in for the load balancer", s.Name, s.Spec.Type, s.Spec.ExternalTrafficPolicy)
		}
		if !outside && len(g.settings.Listen[0].ProxyProtocolFrom) > 0 {
			p.addf("there is no load balancer to send PROXY headers")
		}
		if want := proxyAnnotations(); len(g.settings.Listen[0].ProxyProtocolFrom) > 0 && g.objects.namespace != "" && !maps.Equal(s.Annotations, want) {
			p.addf("nobody tells the load balancer to send PROXY headers: %v", s.Annotations)
		}
		if s.Spec.Type == "" && s.Spec.ClusterIP != corev1.ClusterIPNone {
			p.addf("the Service of a StatefulSet has no clusterIP: None")
		}
	}
}

// proxyAnnotations are those of the AWS Load Balancer Controller, which the examples are for.
func proxyAnnotations() map[string]string {
	const prefix = "service.beta.kubernetes.io/aws-load-balancer-"
	return map[string]string{prefix + "type": "external", prefix + "nlb-target-type": "ip", prefix + "proxy-protocol": "*"}
}

func matches(selector, labels map[string]string) bool {
	for key, value := range selector {
		if v, ok := labels[key]; !ok || v != value {
			return false
		}
	}
	return true
}

// checkGateway: what there is besides, when Pods come and go.
func (g *gate) checkGateway(p *problems) {
	if g.settings.Backend.SSLMode != "verify-full" {
		p.addf("backend.sslmode is %q", g.settings.Backend.SSLMode)
	}
	if len(g.objects.autoscalers) == 0 && (g.workload.replicas == nil || *g.workload.replicas < 2) {
		p.addf("one Pod, or none")
	}
	for _, a := range g.objects.autoscalers {
		ref, s := a.Spec.ScaleTargetRef, a.Spec
		if ref.APIVersion != appsv1.SchemeGroupVersion.String() || ref.Kind != g.workload.kind || ref.Name != g.workload.name || g.workload.replicas != nil {
			p.addf("the autoscaler is for %v, and there are replicas: %v", ref, g.workload.replicas)
		}
		if s.MinReplicas == nil || *s.MinReplicas < 2 || s.MaxReplicas < *s.MinReplicas {
			p.addf("the autoscaler makes from %v to %d Pods", s.MinReplicas, s.MaxReplicas)
		}
		if len(s.Metrics) != 1 || s.Metrics[0].Type != "Resource" || s.Metrics[0].Resource == nil || s.Metrics[0].Resource.Name != "cpu" ||
			s.Metrics[0].Resource.Target.Type != "Utilization" || s.Metrics[0].Resource.Target.AverageUtilization == nil {
			p.addf("the autoscaler looks at %v", s.Metrics)
		}
		if b := s.Behavior; b == nil || b.ScaleDown == nil || b.ScaleDown.StabilizationWindowSeconds == nil || len(b.ScaleDown.Policies) != 1 ||
			b.ScaleDown.Policies[0].Type != "Pods" || b.ScaleDown.Policies[0].Value != 1 || *b.ScaleDown.StabilizationWindowSeconds < 300 || b.ScaleDown.Policies[0].PeriodSeconds < 60 {
			p.addf("the autoscaler takes Pods away in a hurry")
		}
	}
	if b := g.objects.budgets; len(b) != 1 || !g.selects(b[0].Spec.Selector) || b[0].Spec.MaxUnavailable == nil || b[0].Spec.MaxUnavailable.IntValue() != 1 ||
		b[0].Spec.UnhealthyPodEvictionPolicy == nil || *b[0].Spec.UnhealthyPodEvictionPolicy != "AlwaysAllow" {
		p.addf("the PodDisruptionBudget is %v", b)
	}
	if u := g.workload.strategy.RollingUpdate; u == nil || u.MaxUnavailable == nil || u.MaxUnavailable.IntValue() != 0 || u.MaxSurge == nil || u.MaxSurge.IntValue() != 1 {
		p.addf("Pods go before others have come: %v", u)
	}
	var spread []string
	for _, c := range g.workload.template.Spec.TopologySpreadConstraints {
		spread = append(spread, c.TopologyKey)
		if c.MaxSkew != 1 || c.WhenUnsatisfiable != corev1.ScheduleAnyway || !g.selects(c.LabelSelector) {
			p.addf("the Pods are spread by %v", c)
		}
	}
	if !slices.Equal(spread, []string{"topology.kubernetes.io/zone", "kubernetes.io/hostname"}) {
		p.addf("the Pods are spread over %q", spread)
	}
}

// checkSidecar: PostgreSQL has no door but the one to the gate.
func (g *gate) checkSidecar(p *problems) {
	if g.container.RestartPolicy == nil || *g.container.RestartPolicy != corev1.ContainerRestartPolicyAlways {
		p.addf("pgwicket is no native sidecar: PostgreSQL would wait for its end")
	}
	pod := g.workload.template.Spec
	if s := pod.SecurityContext; s == nil || s.FSGroupChangePolicy == nil || *s.FSGroupChangePolicy != corev1.FSGroupChangeOnRootMismatch {
		p.addf("every start would open PostgreSQL's data to fsGroup")
	}
	if len(pod.Containers) != 1 {
		p.addf("there are %d containers", len(pod.Containers))
		return
	}
	server, socket := pod.Containers[0], g.settings.Backend.Host
	if len(server.Ports) > 0 {
		p.addf("PostgreSQL has ports: %v", server.Ports)
	}
	if len(server.Args)%2 != 0 {
		p.addf("PostgreSQL gets %q", server.Args)
		return
	}
	args := map[string]string{}
	for pair := range slices.Chunk(server.Args, 2) {
		name, value, ok := strings.Cut(pair[1], "=")
		if pair[0] != "-c" || !ok {
			p.addf("PostgreSQL gets %q", pair)
		}
		args[name] = value
	}
	hba := path.Dir(args["hba_file"])
	for name, want := range map[string]string{"listen_addresses": "", "unix_socket_directories": socket, "unix_socket_permissions": "0770", "hba_file": hba + "/pg_hba.conf"} {
		if got, ok := args[name]; !ok || got != want {
			p.addf("PostgreSQL has %s=%q, not %q", name, got, want)
		}
	}
	theirs, ours := mounted(&server, socket), mounted(g.container, socket)
	if theirs == "" || theirs != ours || !g.isEmptyDir(ours) {
		p.addf("the socket's directory is %q there and %q here", theirs, ours)
	}
	g.checkHBA(p, mounted(&server, hba))
	if server.ReadinessProbe == nil || server.ReadinessProbe.Exec == nil || server.ReadinessProbe.Exec.Command[0] != "pg_isready" {
		p.addf("PostgreSQL is probed by %v", server.ReadinessProbe)
	}
}

func mounted(c *corev1.Container, where string) string {
	for _, m := range c.VolumeMounts {
		if m.MountPath == where {
			return m.Name
		}
	}
	return ""
}

func (g *gate) isEmptyDir(name string) bool {
	for _, v := range g.workload.template.Spec.Volumes {
		if v.Name == name {
			return v.EmptyDir != nil
		}
	}
	return false
}

// checkHBA: nothing but the local superuser may be let in without a password.
func (g *gate) checkHBA(p *problems, volume string) {
	for _, v := range g.workload.template.Spec.Volumes {
		if v.Name != volume || v.ConfigMap == nil || g.objects.configMap(v.ConfigMap.Name) == nil {
			continue
		}
		var lines []string
		for line := range strings.Lines(g.objects.configMap(v.ConfigMap.Name).Data["pg_hba.conf"]) {
			if line = strings.Join(strings.Fields(line), " "); !strings.HasPrefix(line, "#") {
				lines = append(lines, line)
			}
		}
		if !slices.Equal(lines, []string{"local all postgres peer", "local all all scram-sha-256", "local replication all scram-sha-256"}) {
			p.addf("pg_hba.conf has %q", lines)
		}
		return
	}
	p.addf("there is no pg_hba.conf")
}

func (g *gate) checkPolicies(p *problems) {
	for _, policy := range g.objects.policies {
		s := policy.Spec
		if !g.selects(&s.PodSelector) {
			p.addf("the NetworkPolicy is for %v", s.PodSelector)
		}
		types := []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}
		if g.onTCP() {
			types = append(types, networkingv1.PolicyTypeEgress)
			g.checkEgress(p, s.Egress)
		}
		if !slices.Equal(s.PolicyTypes, types) {
			p.addf("the NetworkPolicy has the types %v", s.PolicyTypes)
		}
		g.checkIngress(p, s.Ingress)
	}
}

// checkIngress: clients and load balancers to one port, Prometheus to the other, nobody else.
func (g *gate) checkIngress(p *problems, rules []networkingv1.NetworkPolicyIngressRule) {
	if len(rules) != 2 {
		p.addf("%d rules let in", len(rules))
		return
	}
	want := []string{"namespaces pgwicket-clients=true"}
	for _, network := range g.settings.Listen[0].ProxyProtocolFrom {
		want = append(want, "network "+network.String())
	}
	if got := peers(rules[0].From); !slices.Equal(got, want) || !slices.Equal(portsOf(rules[0].Ports), []string{fmt.Sprint("TCP ", g.listen)}) {
		p.addf("the NetworkPolicy lets %q to %v, not %q", got, portsOf(rules[0].Ports), want)
	}
	if got := peers(rules[1].From); !slices.Equal(got, []string{"namespaces kubernetes.io/metadata.name=monitoring"}) || !slices.Equal(portsOf(rules[1].Ports), []string{fmt.Sprint("TCP ", g.admin)}) {
		p.addf("the NetworkPolicy lets %q to %v", got, portsOf(rules[1].Ports))
	}
}

func (g *gate) checkEgress(p *problems, rules []networkingv1.NetworkPolicyEgressRule) {
	if len(rules) != 2 {
		p.addf("%d rules let out", len(rules))
		return
	}
	known := []string{"network 10.30.0.0/24", "network 172.31.8.0/24", "pods app.kubernetes.io/name=postgresql"}
	if got := peers(rules[0].To); len(got) != 1 || !slices.Contains(known, got[0]) || !slices.Equal(portsOf(rules[0].Ports), []string{fmt.Sprint("TCP ", g.settings.Backend.Port)}) {
		p.addf("the NetworkPolicy lets out to %q, %v", got, portsOf(rules[0].Ports))
	}
	dns := []string{"namespaces kubernetes.io/metadata.name=kube-system pods k8s-app=kube-dns"}
	if got := peers(rules[1].To); !slices.Equal(got, dns) || !slices.Equal(portsOf(rules[1].Ports), []string{"UDP 53", "TCP 53"}) {
		p.addf("the NetworkPolicy lets out to %q, %v", got, portsOf(rules[1].Ports))
	}
}

// peers says in words whom a rule means. An empty peer or selector would be everybody, and is nobody known.
func peers(list []networkingv1.NetworkPolicyPeer) (words []string) {
	for _, peer := range list {
		var word []string
		if s := peer.NamespaceSelector; s != nil {
			word = append(word, "namespaces "+labels.FormatLabels(s.MatchLabels))
		}
		if s := peer.PodSelector; s != nil {
			word = append(word, "pods "+labels.FormatLabels(s.MatchLabels))
		}
		if b := peer.IPBlock; b != nil {
			network, err := netip.ParsePrefix(b.CIDR)
			if err != nil || network.Masked() != network || b.Except != nil {
				return nil
			}
			word = append(word, "network "+network.String())
		}
		words = append(words, strings.Join(word, " "))
	}
	if slices.Contains(words, "") {
		return nil
	}
	return words
}

func portsOf(list []networkingv1.NetworkPolicyPort) (words []string) {
	for _, port := range list {
		if port.Protocol == nil || port.Port == nil || port.EndPort != nil {
			return nil
		}
		words = append(words, fmt.Sprint(*port.Protocol, " ", port.Port.IntValue()))
	}
	return words
}

func (g *gate) checkCertificates(p *problems, ext external) {
	for _, i := range g.objects.issuers {
		switch {
		case (i.Spec.CA == nil) == (i.Spec.SelfSigned == nil):
			p.addf("Issuer %s is of no kind", i.Name)
		case i.Spec.CA != nil && g.objects.keys("Secret", i.Spec.CA.SecretName, nil) == nil:
			p.addf("Issuer %s has no Secret %q", i.Name, i.Spec.CA.SecretName)
		}
	}
	for _, c := range g.objects.certificates {
		s := c.Spec
		ref := s.IssuerRef.Kind + "/" + s.IssuerRef.Name
		if _, ok := ext[ref]; s.IssuerRef.Group != "cert-manager.io" || !ok && !slices.Contains(g.objects.names, ref) {
			p.addf("there is no issuer %v for %s", s.IssuerRef, c.Name)
		}
		if s.PrivateKey.Algorithm != "ECDSA" || s.PrivateKey.Size != 256 {
			p.addf("Certificate %s has a key of %v", c.Name, s.PrivateKey)
		}
		if s.IsCA {
			g.checkAuthority(p, &c)
		} else {
			g.checkServer(p, &c)
		}
	}
}

// checkAuthority: it signs revocation lists, too, and keeps its key, which the lists and the clients are bound to.
func (g *gate) checkAuthority(p *problems, c *certificate) {
	s := c.Spec
	if !slices.Equal(s.Usages, []string{"cert sign", "crl sign"}) || s.PrivateKey.RotationPolicy != "Never" || s.CommonName == "" ||
		s.Duration.Duration < 5*365*24*time.Hour || s.IssuerRef.Name != "pgwicket-root" {
		p.addf("the CA is %+v", s)
	}
	signs := false
	for _, i := range g.objects.issuers {
		signs = signs || i.Spec.CA != nil && i.Spec.CA.SecretName == s.SecretName
	}
	if !signs {
		p.addf("nobody issues by %s", c.Name)
	}
}

func (g *gate) checkServer(p *problems, c *certificate) {
	s := c.Spec
	if !slices.Equal(s.Usages, []string{"digital signature", "server auth"}) || s.PrivateKey.RotationPolicy != "Always" ||
		s.RenewBefore.Duration < 7*24*time.Hour || s.Duration.Duration < 2*s.RenewBefore.Duration || s.IssuerRef.Name == "pgwicket-root" {
		p.addf("the server's certificate is %+v", s)
	}
	for _, service := range g.objects.services {
		names := []string{service.Name}
		if ns := g.objects.namespace; ns != "" {
			names = append(names, service.Name+"."+ns+".svc", service.Name+"."+ns+".svc.cluster.local")
		}
		for _, name := range names {
			if !slices.Contains(s.DNSNames, name) {
				p.addf("the certificate is for %q, clients connect to %s", s.DNSNames, name)
			}
		}
		for _, name := range s.DNSNames {
			if strings.HasPrefix(name, service.Name+".") && !slices.Contains(names, name) {
				p.addf("the certificate is for %q, which nobody is", name)
			}
		}
	}
}
