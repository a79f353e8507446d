package main

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/internal/testenv/objects"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// runs creates a pod that runs.
func (s *server) runs(t *testing.T, namespace, name, node, ip string, change func(*corev1.Pod)) {
	t.Helper()
	pod := objects.Pod(namespace, name, node, ip)
	pod.UID = ""
	pod.Spec.Containers = []corev1.Container{{Name: "c", Image: "c"}}
	if change != nil {
		change(&pod)
	}
	status := pod.Status
	if err := s.Create(t.Context(), &pod); err != nil {
		t.Fatal(err)
	}
	pod.Status = status
	if err := s.Status().Update(t.Context(), &pod); err != nil {
		t.Fatal(err)
	}
}

// namespaces creates Namespaces.
func (s *server) namespaces(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		s.create(t, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}})
	}
}

// agents creates the DaemonSet of agents with the flags.
func (s *server) agents(t *testing.T, flags ...string) {
	t.Helper()
	labels := map[string]string{labelName: ourName, labelComponent: componentAgent}
	s.create(t, &appsv1.DaemonSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: "egressip-system", Name: "egressip-agent", Labels: labels},
		Spec: appsv1.DaemonSetSpec{
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "agent", Image: "e:1", Args: append([]string{"agent"}, flags...)}}},
			},
		},
	})
}

// cluster creates Nodes, namespaces and the objects of given; pods of shop have an egress IP on node1.
func (s *server) cluster(t *testing.T) {
	t.Helper()
	s.namespaces(t, "egressip-system", "shop", "free", "test")
	o := given()
	o.NetNamespaces[1].Annotations = map[string]string{v1.AnnotationExcludeCIDRs: "192.0.2.0/24"}
	for i := range o.NetNamespaces {
		s.create(t, &o.NetNamespaces[i])
	}
	for i := range o.HostSubnets {
		h := &o.HostSubnets[i]
		h.Subnet = map[string]string{"node1": "10.244.1.0/24", "node2": "10.244.2.0/24"}[h.Name]
		h.Status.Agent.UplinkCIDR = h.HostIP + "/24"
		s.create(t, h, objects.Node(h.Name, corev1.ConditionTrue))
	}
}

// TestExplainPod: the way of packets from pods of all kinds, on a real API server, as text and for
// programs.
//
// Mutants killed: plugin-hides-the-host-network, plugin-forgets-flags.
func TestExplainPod(t *testing.T) {
	t.Parallel()
	s := startServer(t, "crd")
	s.cluster(t)
	s.agents(t, "--exclude-cidrs=198.51.100.0/24", "--strict=true", "--overlay-port=9789")
	s.runs(t, "shop", "near", "node1", "10.244.1.5", nil)
	s.runs(t, "shop", "far", "node2", "10.244.2.5", nil)
	s.runs(t, "free", "plain", "node2", "10.244.2.6", nil)
	s.runs(t, "test", "cut", "node2", "10.244.2.7", nil)
	s.runs(t, "shop", "host", "node2", "10.1.8.12", func(p *corev1.Pod) { p.Spec.HostNetwork = true })
	s.runs(t, "shop", "done", "node2", "10.244.2.8", func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded })
	s.runs(t, "shop", "early", "node2", "", func(p *corev1.Pod) { p.Status.PodIPs = nil })
	s.runs(t, "shop", "nowhere", "", "", func(p *corev1.Pod) { p.Status.PodIPs = nil })
	s.runs(t, "shop", "bare", "node9", "10.244.9.5", nil)
	for name, c := range map[string]struct {
		args []string
		want []string
		not  []string
	}{
		"from its own host": {
			[]string{"pod/near", "-n", "shop"},
			[]string{
				"pod shop/near, Running, 10.244.1.5\n", "node node1 (10.1.8.11); agent Ready since", "group namespace shop, netid 17, mode ordered\n",
				"egress IP 10.1.8.200: Active on node1 (Assigned)\n", "way from node1 itself",
				"source 10.1.8.200, by source NAT on node1: configured", "result A destination outside sees 10.1.8.200.\n", "rule Namespace shop has active egress IPs.",
			},
			[]string{"Not known"},
		},
		"over the overlay": {
			[]string{"POD/far", "-n", "shop", "--to", "203.0.113.9:443"},
			[]string{
				"way over the overlay to node1 (10.1.8.11), network identifier 17\n",
				"destination 203.0.113.9 is outside: no network that counts has it\n", "result 203.0.113.9:443 sees 10.1.8.200.\n",
			},
			[]string{"Of UDP"},
		},
		"the port of the overlay": {[]string{"pod/far", "-n", "shop", "--to", "203.0.113.9:9789"}, []string{"Of UDP it is dropped in any case"}, nil},
		"to a network of the flags": {
			[]string{"pod/far", "-n", "shop", "--to", "198.51.100.7"},
			[]string{"network 198.51.100.0/24, by --exclude-cidrs of the agents, counts\n", "result 198.51.100.7 sees what it sees without egress IPs"},
			nil,
		},
		"to a network that the namespace excludes": {
			[]string{"pod/far", "-n", "shop", "--to", "192.0.2.7"},
			[]string{"destination 192.0.2.7 is outside, in 192.0.2.0/24, to which egress IPs do not apply\n", "rule Egress IPs do not apply to 192.0.2.7"},
			[]string{"sees 10.1.8.200"},
		},
		"to a pod": {
			[]string{"pod/far", "-n", "shop", "--to", "10.244.1.5"},
			[]string{"network 10.244.1.0/24, by podCIDR of node1, counts\n", "destination 10.244.1.5 is inside, in 10.244.1.0/24\n"},
			nil,
		},
		"to another family":  {[]string{"pod/far", "-n", "shop", "--to", "[2001:db8::9]:443"}, []string{"The pod cannot send there from this address.", "2001:db8::9 is an address of IPv6"}, nil},
		"without egress IPs": {[]string{"pod/plain", "-n", "free"}, []string{"way that of the node's main routing table", "rule Namespace free requests no egress IPs."}, nil},
		"dropped": {
			[]string{"pod/cut", "-n", "test"},
			[]string{"egress IP 10.1.8.201: Unassigned (NotClaimed)\n", "way none: dropped on node2\n", "sees nothing: the packet is dropped", "rule Traffic to the outside is dropped. No host claims 10.1.8.201"},
			nil,
		},
		"dropped, but inside":   {[]string{"pod/cut", "-n", "test", "--to", "10.1.8.11"}, []string{"10.1.8.11 is inside", "even while it is dropped"}, []string{"sees nothing"}},
		"in the host's network": {[]string{"pod/host", "-n", "shop"}, []string{"Pod shop/host: It uses the network of its node"}, nil},
		"has ended":             {[]string{"pod/done", "-n", "shop"}, []string{"All its containers have ended"}, nil},
		"without address":       {[]string{"pod/early", "-n", "shop"}, []string{"It has no address yet"}, nil},
		"on no node":            {[]string{"pod/nowhere", "-n", "shop"}, []string{"It is on no node yet"}, nil},
		"on a node without anything": {
			[]string{"pod/bare", "-n", "shop"}, []string{"The address of node node9 is not known", "Not known: Whether the host still exists: there is no Node node9."}, nil,
		},
	} {
		t.Run(name, func(t *testing.T) {
			check(t, squeeze(s.says(t, append([]string{"explain"}, c.args...)...)), c.want, c.not)
		})
	}
	var e podExplanation
	if err := json.Unmarshal([]byte(s.says(t, "explain", "pod/far", "-n", "shop", "--to", "203.0.113.9", "-o", "json")), &e); err != nil {
		t.Fatal(err)
	}
	if len(e.Routes) != 1 || e.Routes[0].Outcome != egress.OutcomeEgressIP || strings.Join(e.Routes[0].Sources, " ") != "10.1.8.200" {
		t.Errorf("%+v", e)
	}
}

// TestExplainPodWithLittle: what a user may not see, or what is missing, is said to be unknown.
//
// Mutant killed: plugin-knows-flags.
func TestExplainPodWithLittle(t *testing.T) {
	t.Parallel()
	o := given()
	v := nodeView{Objects: o, node: "node2", flags: defaultFlags(), unknown: []string{"The flags of the agents (forbidden)."}}
	v.cluster, _ = egress.Snapshot(o)
	pod := objects.Pod("shop", "far", "node2", "10.244.2.5")
	heir := objects.Pod("shop", "heir", "node2", "10.244.2.5")
	v.pods = []corev1.Pod{pod}
	e := podExplanation{Pod: "shop/far"}
	e.trace(&v, &pod, netip.AddrPort{})
	var out strings.Builder
	if err := e.print(&out); err != nil {
		t.Fatal(err)
	}
	check(t, squeeze(out.String()), []string{"outside sees 10.1.8.200", "\nNot known: The flags of the agents (forbidden).\n"}, nil)

	v.HostSubnets[0].Status.EgressIPs[0].Interface = "eth7"
	e = podExplanation{Pod: "shop/far"}
	e.trace(&v, &pod, netip.AddrPort{})
	if text := e.Routes[0].Steps; !strings.Contains(text[len(text)-1].Text, "at interface eth7") {
		t.Errorf("%+v", text)
	}

	heir.CreationTimestamp = metav1.Now()
	v.pods = append(v.pods, heir)
	e = podExplanation{Pod: "shop/far"}
	e.trace(&v, &pod, netip.AddrPort{})
	if len(e.Routes) != 1 || e.Routes[0].Outcome != egress.OutcomeUnknown || !strings.Contains(e.Routes[0].Why, "Pod shop/heir is newer and has the address") {
		t.Errorf("%+v", e.Routes)
	}
	if _, err := parseDestination("example.com"); err == nil || !strings.Contains(err.Error(), "names are not looked up") {
		t.Error(err)
	}
	for written, want := range map[string]string{"203.0.113.9": "203.0.113.9:0", "203.0.113.9:53": "203.0.113.9:53", "[2001:db8::9]:53": "[2001:db8::9]:53", "::ffff:203.0.113.9": "203.0.113.9:0"} {
		if got, err := parseDestination(written); err != nil || got.String() != want {
			t.Errorf("%s: %v, %v", written, got, err)
		}
	}
}
