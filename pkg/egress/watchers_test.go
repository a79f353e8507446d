package egress_test

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

func peerNames(peers []egress.Peer) []string {
	var names []string
	for _, p := range peers {
		names = append(names, p.Name)
	}
	return names
}

// manyHosts are hosts of which the first has the egress IP of namespace one.
func manyHosts(count int) egress.Cluster {
	c := egress.Cluster{Namespaces: []egress.Namespace{{Name: "one", NetID: 11, Requests: []netip.Addr{netip.MustParseAddr("192.0.2.201")}}}}
	ip := netip.MustParseAddr("192.0.2.1")
	for h := range count {
		c.Hosts = append(c.Hosts, egress.Host{Name: fmt.Sprintf("h%03d", h), IP: ip, Online: true})
		ip = ip.Next()
	}
	c.Hosts[0].Claims = c.Namespaces[0].Requests
	return c
}

func TestWatchersOfAnEgressHost(t *testing.T) {
	c := manyHosts(100)
	r := egress.Resolve(c)
	var witnesses, users []string
	for _, h := range c.Hosts {
		if slices.Contains(peerNames(egress.Watched(c, r, h.Name, nil)), "h000") {
			witnesses = append(witnesses, h.Name)
		}
		pods := []egress.Pod{{Namespace: "one", IP: netip.MustParseAddr("10.0.0.1")}}
		if slices.Contains(peerNames(egress.Watched(c, r, h.Name, pods)), "h000") {
			users = append(users, h.Name)
		}
	}
	if len(witnesses) != 4 {
		t.Errorf("a host that nobody uses is watched by %v, want four", witnesses)
	}
	if len(users) != 99 {
		t.Errorf("with pods everywhere, %d hosts watch the egress host, want all 99 others", len(users))
	}
	// It watches those that watch it: by them it knows whether it is cut off.
	if own := peerNames(egress.Watched(c, r, "h000", nil)); !slices.Equal(own, witnesses) {
		t.Errorf("the egress host watches %v, want its witnesses %v", own, witnesses)
	}
	if got := egress.Watched(c, r, "nobody", nil); got != nil {
		t.Errorf("a host that is none watches %v", got)
	}
}

// Mutants killed: neighbours that looks to one side only; Watched without the
// egress host's own witnesses.
func TestPropertyWatchersAreMutual(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c, _ := egress.Snapshot(drawObjects(t, full()))
		r := egress.Resolve(c)
		egressHosts := peerNames(egress.ServingHosts(c, r))
		watched := map[string][]string{}
		for _, h := range c.Hosts {
			watched[h.Name] = peerNames(egress.Watched(c, r, h.Name, nil))
			if slices.Contains(watched[h.Name], h.Name) {
				t.Fatalf("%s watches itself", h.Name)
			}
			if !slices.IsSorted(watched[h.Name]) {
				t.Fatalf("%s watches %v: not in order", h.Name, watched[h.Name])
			}
		}
		valid := 0
		for _, h := range c.Hosts {
			if h.IP.IsValid() {
				valid++
			}
		}
		for _, name := range egressHosts {
			if got, want := len(watched[name]), min(4, valid-1); got < want {
				t.Fatalf("egress host %s watches %v, want %d at least", name, watched[name], want)
			}
			for _, witness := range watched[name] {
				if !slices.Contains(watched[witness], name) {
					t.Fatalf("egress host %s watches %s, which does not watch it", name, witness)
				}
			}
		}
	})
}
