package agent

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// diffState compares states as values; nil and empty lists are the same.
func diffState(want, got any) string {
	return cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{}), cmpopts.EquateEmpty())
}

// TestStateOf: each path of the plan, and what becomes of a plan that
// contradicts itself. A mutant that turns the default of podState into Node, or
// takes the first of two contradicting paths, fails here.
func TestStateOf(t *testing.T) {
	t.Parallel()
	plan := egress.Plan{
		Host: "node1", HostIP: testenv.Addr("10.1.8.11"),
		Hosts:   testenv.Addrs("10.1.8.11", "10.1.8.12"),
		Inside:  testenv.Prefixes("10.96.0.0/16", "10.244.0.0/16"),
		Subnets: testenv.Prefixes("10.244.1.0/24"),
		Hosted:  []egress.HostedIP{{IP: testenv.Addr("192.168.7.200"), NetID: 17, Group: "shop"}},
		Orphans: testenv.Addrs("192.168.7.201"),
	}
	var many []netip.Addr
	for i := range dataplane.MaxVia + 3 {
		many = append(many, netip.AddrFrom4([4]byte{10, 1, 8, byte(20 + i)}))
	}
	for name, c := range map[string]struct {
		paths []egress.PodPath
		want  []dataplane.Pod
	}{
		"no pods": {},
		"no egress IP": {
			[]egress.PodPath{{IP: testenv.Addr("10.244.1.5"), NetID: 5, Kind: egress.PathNode, Namespace: "free", Name: "a"}},
			[]dataplane.Pod{{IP: testenv.Addr("10.244.1.5"), Kind: dataplane.Node}},
		},
		"leaves here": {
			[]egress.PodPath{{IP: testenv.Addr("10.244.1.5"), NetID: 17, Kind: egress.PathLocal, EgressIP: testenv.Addr("192.168.7.200")}},
			[]dataplane.Pod{{IP: testenv.Addr("10.244.1.5"), NetID: 17, Kind: dataplane.Local, EgressIP: testenv.Addr("192.168.7.200")}},
		},
		"leaves elsewhere": {
			[]egress.PodPath{{IP: testenv.Addr("10.244.1.5"), NetID: 18, Kind: egress.PathRemote, Via: testenv.Addrs("10.1.8.12"), Sources: testenv.Addrs("10.1.8.200")}},
			[]dataplane.Pod{{IP: testenv.Addr("10.244.1.5"), NetID: 18, Kind: dataplane.Remote, Via: testenv.Addrs("10.1.8.12"), Sources: testenv.Addrs("10.1.8.200")}},
		},
		"more egress hosts than a pod can be spread over": {
			[]egress.PodPath{{IP: testenv.Addr("10.244.1.5"), NetID: 18, Kind: egress.PathRemote, Via: many}},
			[]dataplane.Pod{{IP: testenv.Addr("10.244.1.5"), NetID: 18, Kind: dataplane.Remote, Via: many[:dataplane.MaxVia]}},
		},
		"dropped": {
			[]egress.PodPath{{IP: testenv.Addr("10.244.1.5"), NetID: 18, Kind: egress.PathDrop}},
			[]dataplane.Pod{{IP: testenv.Addr("10.244.1.5"), Kind: dataplane.Drop}},
		},
		"local with an address that is not hosted": {
			[]egress.PodPath{{IP: testenv.Addr("10.244.1.5"), NetID: 17, Kind: egress.PathLocal, EgressIP: testenv.Addr("192.168.7.201")}},
			[]dataplane.Pod{{IP: testenv.Addr("10.244.1.5"), Kind: dataplane.Drop}},
		},
		"remote over nobody": {
			[]egress.PodPath{{IP: testenv.Addr("10.244.1.5"), NetID: 18, Kind: egress.PathRemote}},
			[]dataplane.Pod{{IP: testenv.Addr("10.244.1.5"), Kind: dataplane.Drop}},
		},
		"a path that nobody knows": {
			[]egress.PodPath{{IP: testenv.Addr("10.244.1.5"), NetID: 18, Kind: 77, Via: testenv.Addrs("10.1.8.12")}},
			[]dataplane.Pod{{IP: testenv.Addr("10.244.1.5"), Kind: dataplane.Drop}},
		},
		"one address, two ways": {
			[]egress.PodPath{
				{IP: testenv.Addr("10.244.1.5"), Kind: egress.PathNode},
				{IP: testenv.Addr("10.244.1.5"), NetID: 18, Kind: egress.PathRemote, Via: testenv.Addrs("10.1.8.12")},
				{IP: testenv.Addr("10.244.1.6"), Kind: egress.PathNode},
			},
			[]dataplane.Pod{{IP: testenv.Addr("10.244.1.5"), Kind: dataplane.Drop}, {IP: testenv.Addr("10.244.1.6"), Kind: dataplane.Node}},
		},
		"one address, twice the same way": {
			[]egress.PodPath{{IP: testenv.Addr("10.244.1.5"), Kind: egress.PathNode}, {IP: testenv.Addr("10.244.1.5"), Kind: egress.PathNode}},
			[]dataplane.Pod{{IP: testenv.Addr("10.244.1.5"), Kind: dataplane.Node}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			plan := plan
			plan.Pods = c.paths
			want := dataplane.State{
				HostIP: plan.HostIP, Hosts: plan.Hosts, Inside: plan.Inside, Subnets: plan.Subnets, Strict: true,
				Hosted: []dataplane.Hosted{{IP: testenv.Addr("192.168.7.200"), NetID: 17}},
				Pods:   c.want,
			}
			if diff := diffState(want, stateOf(plan, true)); diff != "" {
				t.Errorf("stateOf (-want +got):\n%s", diff)
			}
		})
	}
}

// TestStateOfSharesNothing: the plan stays as it is whatever is done to the
// state.
// TestStateOfFurtherInterfaces: where an egress IP belongs is what the plan says, also of those that
// are only prepared.
func TestStateOfFurtherInterfaces(t *testing.T) {
	t.Parallel()
	hosted := egress.HostedIP{IP: testenv.Addr("172.16.5.200"), NetID: 17, Interface: "eth1", Gateway: testenv.Addr("172.16.5.1")}
	standby := egress.HostedIP{IP: testenv.Addr("172.16.6.200"), NetID: 18, Interface: "eth2"}
	s := stateOf(egress.Plan{HostIP: testenv.Addr("10.1.8.11"), Hosted: []egress.HostedIP{hosted}, Standby: []egress.HostedIP{hosted, standby}}, false)
	if want := (dataplane.Hosted{IP: hosted.IP, NetID: 17, Interface: "eth1", Gateway: hosted.Gateway}); len(s.Hosted) != 1 || s.Hosted[0] != want {
		t.Errorf("hosted %+v, want %+v", s.Hosted, want)
	}
	if want := (dataplane.Hosted{IP: standby.IP, NetID: 18, Interface: "eth2"}); len(s.Standby) != 1 || s.Standby[0] != want {
		t.Errorf("standby %+v, want %+v", s.Standby, want)
	}
}

func TestStateOfSharesNothing(t *testing.T) {
	t.Parallel()
	via := testenv.Addrs("10.1.8.12")
	plan := egress.Plan{
		HostIP: testenv.Addr("10.1.8.11"), Hosts: slices.Clip(testenv.Addrs("10.1.8.12")), Inside: testenv.Prefixes("10.244.0.0/16"),
		Pods: []egress.PodPath{{IP: testenv.Addr("10.244.1.5"), Kind: egress.PathRemote, Via: via}},
	}
	s := stateOf(plan, false)
	if want := testenv.Addrs("10.1.8.11", "10.1.8.12"); !slices.Equal(s.Hosts, want) {
		t.Errorf("hosts %v, want the own address among them: %v", s.Hosts, want)
	}
	s.Hosts[1], s.Inside[0], s.Pods[0].Via[0] = testenv.Addr("1.1.1.1"), netip.Prefix{}, testenv.Addr("1.1.1.1")
	if via[0] != testenv.Addr("10.1.8.12") || plan.Hosts[0] != testenv.Addr("10.1.8.12") || !plan.Inside[0].IsValid() {
		t.Errorf("the plan has changed: %+v", plan)
	}
}
