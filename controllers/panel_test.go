package controllers

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
	"github.com/egressip-operator/egressip-operator/pkg/online"
)

// panelView is a view of hosts node0 to node9, all with an agent, a Ready Node and an
// answer to probes, of which the first has the next seven as witnesses.
func panelView() (view, map[string]*corev1.Node) {
	v, nodes := view{probed: make(map[string]online.ProbeState)}, make(map[string]*corev1.Node)
	for i := range 10 {
		name := fmt.Sprintf("node%d", i)
		v.hosts = append(v.hosts, &v1.HostSubnet{ObjectMeta: metav1.ObjectMeta{Name: name}, Status: v1.HostSubnetStatus{Agent: &v1.AgentStatus{Version: "1"}}})
		v.probed[name] = online.ProbeAnswers
		nodes[name] = &corev1.Node{}
		setReady(nodes[name], true)
		if i > 0 && i <= egress.MaxPanel {
			v.hosts[0].Status.Witnesses = append(v.hosts[0].Status.Witnesses, name)
		}
	}
	return v, nodes
}

// TestCountVotes: the host node0 is silent to all. A witness has a vote while its agent
// is alive; nobody else has one.
//
// Mutants killed: dead-witnesses-vote, unready-witnesses-vote.
func TestCountVotes(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		change func(v *view, nodes map[string]*corev1.Node)
		want   online.Vote
	}{
		{"all find it silent", func(*view, map[string]*corev1.Node) {}, online.Vote{Panel: 7, Watchers: 7, Silent: 7}},
		{"three die with it, and had said that all is well", func(v *view, _ map[string]*corev1.Node) {
			for i := 1; i <= 3; i++ {
				v.hosts[i].Status.Agent.Silent, v.probed[v.hosts[i].Name] = nil, online.ProbeSilent
			}
		}, online.Vote{Panel: 7, Watchers: 4, Silent: 4}},
		{"the agent of one is gone", func(v *view, _ map[string]*corev1.Node) { v.probed["node1"] = online.ProbeNoAgent }, online.Vote{Panel: 7, Watchers: 6, Silent: 6}},
		{"one is not probed yet", func(v *view, _ map[string]*corev1.Node) { delete(v.probed, "node1") }, online.Vote{Panel: 7, Watchers: 7, Silent: 7}},
		{"one is not probed, and its Node is lost", func(v *view, nodes map[string]*corev1.Node) {
			delete(v.probed, "node1")
			setReady(nodes["node1"], false)
		}, online.Vote{Panel: 7, Watchers: 6, Silent: 6}},
		{"one has never reported", func(v *view, _ map[string]*corev1.Node) { v.hosts[1].Status.Agent = nil }, online.Vote{Panel: 7, Watchers: 6, Silent: 6}},
		{"one has no HostSubnet", func(v *view, _ map[string]*corev1.Node) { v.hosts = slices.Delete(v.hosts, 1, 2) }, online.Vote{Panel: 7, Watchers: 6, Silent: 6}},
		{"it has no witnesses yet", func(v *view, _ map[string]*corev1.Node) { v.hosts[0].Status.Witnesses = nil }, online.Vote{}},
		{"nothing is probed", func(v *view, _ map[string]*corev1.Node) { v.probed = nil }, online.Vote{}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			v, nodes := panelView()
			for _, h := range v.hosts[1:] {
				h.Status.Agent.Silent = []string{"node0"}
			}
			test.change(&v, nodes)
			v.countVotes(nodes)
			if got := v.votes["node0"]; got != test.want {
				t.Errorf("vote %+v, want %+v", got, test.want)
			}
		})
	}
}

// TestPickKeepsWitnesses: a witness that falls silent stays for a minute, as one whose
// Node is not Ready does. A host in this state becomes no witness.
//
// Mutant killed: panel-forgets.
func TestPickKeepsWitnesses(t *testing.T) {
	t.Parallel()
	v, nodes := panelView()
	hosts := []egress.Peer{{Name: "node0"}}
	now := time.Unix(1e9, 0)
	var p panels
	pick := func(after time.Duration) []string {
		now = now.Add(after)
		v.readCandidates(nodes)
		return p.pick(v, hosts, now)["node0"]
	}
	first := pick(0)
	if len(first) != egress.MaxPanel {
		t.Fatalf("the witnesses are %v", first)
	}
	v.hosts[0].Status.Witnesses = first
	v.probed[first[0]] = online.ProbeSilent
	setReady(nodes[first[1]], false)
	var other string // of the two hosts that are no witness
	for _, h := range v.hosts[1:] {
		if !slices.Contains(first, h.Name) {
			other = h.Name
		}
	}
	v.probed[other] = online.ProbeNoAgent
	for range 59 {
		if got := pick(time.Second); !slices.Equal(got, first) {
			t.Fatalf("after a moment the witnesses are %v, not %v", got, first)
		}
	}
	got := pick(2 * time.Second)
	// Of nine others six are left, and that is an even number.
	if len(got) != 5 || slices.Contains(got, first[0]) || slices.Contains(got, first[1]) || slices.Contains(got, other) {
		t.Errorf("after a minute the witnesses are %v, of %v without the first two and %s", got, first, other)
	}
	v.hosts[0].Status.Witnesses = got
	v.probed[first[0]] = online.ProbeAnswers
	setReady(nodes[first[1]], true)
	delete(v.probed, other)
	v.probed[first[1]] = online.ProbeAnswers
	if again := pick(time.Second); !slices.Equal(again, first) {
		t.Errorf("when they are back, the witnesses are %v, not %v", again, first)
	}
}

// TestWitnessesOfTwoFamilies: a host is probed by those that reach it.
//
// Mutant killed: witnesses-of-any-family.
func TestWitnessesOfTwoFamilies(t *testing.T) {
	t.Parallel()
	v, nodes := panelView()
	for i, h := range v.hosts {
		h.HostIP = fmt.Sprintf("192.0.2.%d", i+1)
		if i%2 == 1 {
			h.HostIP = fmt.Sprintf("2001:db8::%d", i+1)
		}
	}
	v.readCandidates(nodes)
	var peers []egress.Peer
	for _, h := range v.hosts {
		peers = append(peers, egress.Peer{Name: h.Name, IP: netip.MustParseAddr(h.HostIP)})
	}
	for name, panel := range (&panels{}).pick(v, peers, time.Unix(0, 0)) {
		for _, w := range panel {
			if (name[4]-w[4])%2 != 0 {
				t.Errorf("%s has the witness %s", name, w)
			}
		}
	}
}

// TestSourceOfProbes: hosts answer the hostIP of the controller's node, whichever of its
// addresses the kubelet names first.
func TestSourceOfProbes(t *testing.T) {
	t.Parallel()
	hosts := []v1.HostSubnet{
		{HostIP: "192.0.2.1", Status: v1.HostSubnetStatus{HostIPs: []string{"192.0.2.1", "2001:db8::1"}}},
		{HostIP: "2001:db8::2", Status: v1.HostSubnetStatus{HostIPs: []string{"2001:db8::2"}}},
		{HostIP: "x", Status: v1.HostSubnetStatus{HostIPs: []string{"x", "2001:db8::3"}}},
	}
	for given, want := range map[string]string{
		"192.0.2.1": "192.0.2.1", "2001:db8::1": "192.0.2.1", "2001:db8::2": "2001:db8::2", "2001:db8::3": "2001:db8::3", "192.0.2.9": "192.0.2.9",
	} {
		if got := sourceOf(hosts, netip.MustParseAddr(given)); got.String() != want {
			t.Errorf("of %s: %v, want %s", given, got, want)
		}
	}
	if got := sourceOf(hosts, netip.Addr{}); got.IsValid() {
		t.Errorf("without an address: %v", got)
	}
}
