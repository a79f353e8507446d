package controllers_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/controllers"
	"github.com/egressip-operator/egressip-operator/internal/testenv"
)

// wantActive says what is wrong with a namespace that shall have an egress IP.
func wantActive(ip, host string) func(*v1.NetNamespace) string {
	return func(n *v1.NetNamespace) string {
		if n.Status.Active == nil || *n.Status.Active != (v1.Assignment{IP: ip, Host: host}) {
			return fmt.Sprintf("active is %v, want %s on %s; %v", n.Status.Active, ip, host, n.Status.EgressIPs)
		}
		if n.Status.ObservedGeneration != n.Generation {
			return "the status speaks of an older generation"
		}
		return wantCondition(n.Status.Conditions, v1.ConditionEgressReady, metav1.ConditionTrue, "Assigned", ip)
	}
}

// wantDropped says what is wrong with a namespace that shall be dropped.
func wantDropped(reason, word string) func(*v1.NetNamespace) string {
	return func(n *v1.NetNamespace) string {
		if n.Status.Active != nil {
			return fmt.Sprintf("active is %v, want none", n.Status.Active)
		}
		return wantCondition(n.Status.Conditions, v1.ConditionEgressReady, metav1.ConditionFalse, reason, word)
	}
}

// TestStatus: the admin sees in status and events what has become of each field.
func TestStatus(t *testing.T) {
	a := startAPI(t)
	a.control(t, controllers.Options{})
	for i, name := range []string{"node1", "node2", "node3"} {
		a.node(t, name, fmt.Sprintf("10.254.%d.0/24", i+1), fmt.Sprintf("192.168.7.%d", i+11))
	}
	for _, name := range []string{"shop", "bank", "idle"} {
		a.namespace(t, name)
	}

	t.Run("requested and claimed nowhere: dropped", func(t *testing.T) {
		a.request(t, "shop", "192.168.7.200")
		a.awaitNamespace(t, "shop", wantDropped("NotClaimed", "192.168.7.200"))
		a.awaitEvent(t, "NetNamespace", "shop", "NamespaceDropped", "192.168.7.200")
	})

	t.Run("claimed: active", func(t *testing.T) {
		a.claim(t, "node3", "192.168.7.200")
		a.awaitNamespace(t, "shop", wantActive("192.168.7.200", "node3"))
		a.awaitHost(t, "node3", func(h *v1.HostSubnet) string {
			if wrong := wantCondition(h.Status.Conditions, v1.ConditionOnline, metav1.ConditionTrue, "NodeReady", ""); wrong != "" {
				return wrong
			}
			return wantCondition(h.Status.Conditions, v1.ConditionEgressReady, metav1.ConditionTrue, "Assigned", "")
		})
		a.awaitEvent(t, "NetNamespace", "shop", "EgressIPAssigned", "192.168.7.200")
		a.awaitEvent(t, "HostSubnet", "node3", "EgressIPAssigned", "192.168.7.200")
		a.awaitEvent(t, "NetNamespace", "shop", "NamespaceRestored", "192.168.7.200")
		if out, err := a.kubectl(t, "", "wait", "--for=condition=EgressReady", "netnamespace/shop", "--timeout=10s"); err != nil {
			t.Errorf("kubectl wait: %v\n%s", err, out)
		}
	})

	t.Run("requested by a second namespace: both are dropped", func(t *testing.T) {
		a.request(t, "bank", "192.168.7.200")
		const words = "Multiple namespaces (bank, shop) claiming EgressIP 192.168.7.200"
		for _, name := range []string{"shop", "bank"} {
			n := a.awaitNamespace(t, name, wantDropped("MultipleNamespaces", words))
			if n.Status.EgressIPs[0].State != v1.StateConflict {
				t.Errorf("state of %s is %s", name, n.Status.EgressIPs[0].State)
			}
			a.awaitEvent(t, "NetNamespace", name, "EgressIPConflict", words)
		}
		a.awaitHost(t, "node3", func(h *v1.HostSubnet) string {
			return wantCondition(h.Status.Conditions, v1.ConditionEgressReady, metav1.ConditionFalse, "MultipleNamespaces", words)
		})
		a.awaitEvent(t, "HostSubnet", "node3", "EgressIPConflict", words)
	})

	t.Run("the second withdraws: as before", func(t *testing.T) {
		a.request(t, "bank")
		a.awaitNamespace(t, "shop", wantActive("192.168.7.200", "node3"))
		a.awaitNamespace(t, "bank", func(n *v1.NetNamespace) string {
			if len(n.Status.EgressIPs)+len(n.Status.Conditions) > 0 {
				return fmt.Sprintf("status is %v, want none", n.Status)
			}
			return ""
		})
	})

	t.Run("claimed by a second host: on neither", func(t *testing.T) {
		a.claim(t, "node2", "192.168.7.200")
		const words = "Multiple nodes (node2, node3) claiming EgressIP 192.168.7.200"
		a.awaitNamespace(t, "shop", wantDropped("MultipleHosts", words))
		for _, name := range []string{"node2", "node3"} {
			a.awaitEvent(t, "HostSubnet", name, "EgressIPConflict", words)
		}
		a.claim(t, "node2")
		a.awaitNamespace(t, "shop", wantActive("192.168.7.200", "node3"))
	})

	t.Run("fallback: the next in the list while the host is offline", func(t *testing.T) {
		a.request(t, "shop", "192.168.7.200", "192.168.7.201")
		a.claim(t, "node1", "192.168.7.201")
		a.awaitNamespace(t, "shop", func(n *v1.NetNamespace) string {
			if len(n.Status.EgressIPs) != 2 || n.Status.EgressIPs[1].State != v1.StateStandby {
				return fmt.Sprintf("requests are %v", n.Status.EgressIPs)
			}
			return ""
		})
		a.ready(t, "node3", corev1.ConditionUnknown)
		a.awaitNamespace(t, "shop", wantActive("192.168.7.201", "node1"))
		a.awaitHost(t, "node3", func(h *v1.HostSubnet) string {
			if wrong := wantEgressIPs(h.EgressIPs, "192.168.7.200"); wrong != "" {
				return wrong // a manual claim is the user's
			}
			return wantCondition(h.Status.Conditions, v1.ConditionOnline, metav1.ConditionFalse, "NodeUnreachable", "")
		})
		a.awaitEvent(t, "NetNamespace", "shop", "EgressIPMoved", "leaves with 192.168.7.201 from host node1")
		a.ready(t, "node3", corev1.ConditionTrue)
		a.awaitNamespace(t, "shop", wantActive("192.168.7.200", "node3"))
		a.awaitEvent(t, "NetNamespace", "shop", "EgressIPMoved", "leaves with 192.168.7.200 from host node3")
	})

	t.Run("what can be no egress IP is reported", func(t *testing.T) {
		a.request(t, "bank", "192.168.7.12", "0.0.0.0")
		a.claim(t, "node1", "192.168.7.12", "192.168.7.201")
		n := a.awaitNamespace(t, "bank", wantDropped("", "192.168.7.12"))
		for _, request := range n.Status.EgressIPs {
			if request.State != v1.StateInvalid || request.Message == "" {
				t.Errorf("request is %+v, want Invalid with a message", request)
			}
		}
		a.awaitEvent(t, "NetNamespace", "bank", "EgressIPInvalid", "192.168.7.12 is the address of host node2 itself")
		a.awaitEvent(t, "NetNamespace", "bank", "EgressIPInvalid", "0.0.0.0")
		a.request(t, "bank")
		a.claim(t, "node1", "192.168.7.201")
	})

	t.Run("the address is outside the network that the agent reports", func(t *testing.T) {
		// The agent that these tests play has reported the claim. It would overwrite what
		// seems to be its own report, by its version.
		h := a.awaitHost(t, "node1", func(h *v1.HostSubnet) string {
			if len(h.Status.EgressIPs) != 1 || h.Status.EgressIPs[0].IP != "192.168.7.201" {
				return fmt.Sprintf("its agent reports %+v", h.Status.EgressIPs)
			}
			return ""
		})
		before := h.DeepCopy()
		h.Status.Agent = &v1.AgentStatus{Version: "another", UplinkCIDR: "192.168.7.11/26"}
		if err := a.Status().Patch(t.Context(), h, client.MergeFrom(before)); err != nil {
			t.Fatal(err)
		}
		a.awaitHost(t, "node1", func(h *v1.HostSubnet) string {
			return wantCondition(h.Status.Conditions, v1.ConditionEgressReady, metav1.ConditionFalse, "OutsideNetwork", "192.168.7.201")
		})
		a.awaitEvent(t, "HostSubnet", "node1", "EgressIPInvalid", "192.168.7.201")
	})

	t.Run("withdrawn: the host is told, and others saw nothing", func(t *testing.T) {
		a.request(t, "shop", "192.168.7.200")
		a.request(t, "shop")
		a.awaitEvent(t, "HostSubnet", "node3", "EgressIPUnassigned", "no longer requests 192.168.7.200")
		idle, err := a.events(t.Context(), "NetNamespace", "idle")
		if err != nil || len(idle) > 0 {
			t.Errorf("events of a namespace that requests nothing: %q, %v", idle, err)
		}
	})
}

// claimsWatch notes, from the stream of all changes, every address that was on
// the lists of two HostSubnets at the same time.
type claimsWatch struct {
	mu     sync.Mutex
	claims map[string][]string
	twice  []string
}

func (a *api) watchClaims(t *testing.T) *claimsWatch {
	t.Helper()
	c, err := client.NewWithWatch(a.cfg, client.Options{Scheme: a.Scheme()})
	if err != nil {
		t.Fatal(err)
	}
	w, err := c.Watch(t.Context(), &v1.HostSubnetList{})
	if err != nil {
		t.Fatal(err)
	}
	seen := &claimsWatch{claims: make(map[string][]string)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for event := range w.ResultChan() {
			seen.note(event)
		}
	}()
	t.Cleanup(func() { w.Stop(); <-done })
	return seen
}

func (s *claimsWatch) note(event watch.Event) {
	h, ok := event.Object.(*v1.HostSubnet)
	if !ok {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.claims[h.Name] = h.EgressIPs
	if event.Type == watch.Deleted {
		delete(s.claims, h.Name)
	}
	for other, ips := range s.claims {
		for _, ip := range ips {
			if other != h.Name && slices.Contains(s.claims[h.Name], ip) {
				s.twice = append(s.twice, fmt.Sprintf("%s on %s and %s", ip, other, h.Name))
			}
		}
	}
}

// load is the number of claims of each host, and of all together.
func (a *api) load(ctx context.Context) (map[string]int, int, error) {
	var list v1.HostSubnetList
	if err := a.List(ctx, &list); err != nil {
		return nil, 0, err
	}
	loads, sum := make(map[string]int), 0
	for _, h := range list.Items {
		loads[h.Name] = len(h.EgressIPs)
		sum += len(h.EgressIPs)
	}
	return loads, sum, nil
}

// TestAllocation: the controller gives egress IPs to automatic hosts, moves them
// when a host goes, and never has one on two lists.
//
// It kills the mutant that drops overlay.wrote from allocate: what was just
// claimed for one host is then claimed for another while the cache lags.
func TestAllocation(t *testing.T) {
	a := startAPI(t)
	seen := a.watchClaims(t)
	a.control(t, controllers.Options{})
	hosts := []string{"node1", "node2", "node3"}
	for i, name := range hosts {
		a.node(t, name, fmt.Sprintf("10.254.%d.0/24", i+1), fmt.Sprintf("192.168.7.%d", i+11))
		a.ranges(t, name, "192.168.7.128/25")
	}
	const count = 12
	ip := func(i int) string { return fmt.Sprintf("192.168.7.%d", 200+i) }
	for i := range count {
		a.namespace(t, fmt.Sprintf("team-%d", i))
		a.request(t, fmt.Sprintf("team-%d", i), ip(i))
	}
	awaitLoads := func(t *testing.T, want map[string]int) {
		t.Helper()
		testenv.Eventually(t, func(ctx context.Context) string {
			loads, _, err := a.load(ctx)
			if err != nil {
				return err.Error()
			}
			for name, n := range want {
				if loads[name] != n {
					return fmt.Sprintf("loads are %v, want %v", loads, want)
				}
			}
			return ""
		})
	}
	allActive := func(t *testing.T) {
		t.Helper()
		for i := range count {
			a.awaitNamespace(t, fmt.Sprintf("team-%d", i), func(n *v1.NetNamespace) string {
				if n.Status.Active == nil || n.Status.Active.IP != ip(i) {
					return fmt.Sprintf("active is %v", n.Status.Active)
				}
				return ""
			})
		}
	}

	t.Run("spread evenly", func(t *testing.T) {
		testenv.Eventually(t, func(ctx context.Context) string {
			loads, sum, err := a.load(ctx)
			if err != nil || sum != count || slices.ContainsFunc(hosts, func(h string) bool { return loads[h] < count/3-1 }) {
				return fmt.Sprintf("loads are %v, %v", loads, err)
			}
			return ""
		})
		allActive(t)
	})

	t.Run("a host goes: its egress IPs move, the others stay", func(t *testing.T) {
		before := make(map[string]*v1.HostSubnet)
		for _, name := range hosts {
			before[name] = a.awaitHost(t, name, func(*v1.HostSubnet) string { return "" })
		}
		a.ready(t, "node2", corev1.ConditionFalse)
		awaitLoads(t, map[string]int{"node2": 0})
		testenv.Eventually(t, func(ctx context.Context) string {
			_, sum, err := a.load(ctx)
			if err != nil || sum != count {
				return fmt.Sprintf("%d claims, want %d; %v", sum, count, err)
			}
			return ""
		})
		allActive(t)
		for _, name := range []string{"node1", "node3"} {
			h := a.awaitHost(t, name, func(*v1.HostSubnet) string { return "" })
			for _, stayed := range before[name].EgressIPs {
				if !slices.Contains(h.EgressIPs, stayed) {
					t.Errorf("%s left %s although it could stay", stayed, name)
				}
			}
		}
		moved := before["node2"].EgressIPs[0]
		var team string
		for i := range count {
			if ip(i) == moved {
				team = fmt.Sprintf("team-%d", i)
			}
		}
		a.awaitEvent(t, "NetNamespace", team, "EgressIPMoved", moved+" of namespace "+team+" moved from host node2")
		a.awaitEvent(t, "HostSubnet", "node2", "EgressIPMoved", moved)
		all, err := a.events(t.Context(), "NetNamespace", team)
		if err != nil {
			t.Fatal(err)
		}
		if slices.ContainsFunc(all[1:], func(e string) bool { return len(e) > 16 && e[:16] == "NamespaceDropped" }) && len(all) > 4 {
			t.Errorf("a move is told as an outage: %q", all)
		}
	})

	t.Run("it comes back and gets its share", func(t *testing.T) {
		a.ready(t, "node2", corev1.ConditionTrue)
		testenv.Eventually(t, func(ctx context.Context) string {
			loads, sum, err := a.load(ctx)
			if err != nil || sum != count || loads["node2"] == 0 {
				return fmt.Sprintf("loads are %v, %v", loads, err)
			}
			return ""
		})
		allActive(t)
	})

	t.Run("the list belongs to the controller", func(t *testing.T) {
		h := a.awaitHost(t, "node1", func(*v1.HostSubnet) string { return "" })
		a.claim(t, "node1", append(slices.Clone(h.EgressIPs), "192.168.7.250")...)
		a.awaitEvent(t, "HostSubnet", "node1", "EgressIPUnassigned", "192.168.7.250")
		a.awaitHost(t, "node1", func(now *v1.HostSubnet) string { return wantEgressIPs(now.EgressIPs, h.EgressIPs...) })
	})

	t.Run("no room: told", func(t *testing.T) {
		a.namespace(t, "greedy")
		a.request(t, "greedy", "192.168.7.240", "192.168.7.241", "192.168.7.242", "192.168.7.243")
		a.awaitNamespace(t, "greedy", func(n *v1.NetNamespace) string {
			if len(n.Status.EgressIPs) != 4 || n.Status.EgressIPs[3].Reason != "NoEligibleHost" {
				return fmt.Sprintf("requests are %v", n.Status.EgressIPs)
			}
			return ""
		})
		a.awaitNamespace(t, "greedy", func(n *v1.NetNamespace) string {
			return wantCondition(n.Status.Conditions, v1.ConditionEgressReady, metav1.ConditionTrue, "Assigned", "")
		})
		a.awaitEvent(t, "NetNamespace", "greedy", "NoEligibleHost", "192.168.7.243")
		a.request(t, "greedy")
		testenv.Eventually(t, func(ctx context.Context) string {
			_, sum, err := a.load(ctx)
			if err != nil || sum != count {
				return fmt.Sprintf("%d claims, want %d; %v", sum, count, err)
			}
			return ""
		})
	})

	t.Run("hosts flap and users write at random: never on two lists", func(t *testing.T) {
		for round := range 15 {
			name := hosts[round%3]
			a.ready(t, name, corev1.ConditionFalse)
			a.request(t, fmt.Sprintf("team-%d", round%count))
			a.ready(t, hosts[(round+1)%3], corev1.ConditionTrue)
			a.request(t, fmt.Sprintf("team-%d", round%count), ip(round%count))
			a.ready(t, name, corev1.ConditionTrue)
		}
		allActive(t)
	})

	seen.mu.Lock()
	defer seen.mu.Unlock()
	if len(seen.twice) > 0 {
		t.Errorf("addresses on two lists at once: %q", seen.twice)
	}
}
