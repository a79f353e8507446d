package dataplane

import (
	"fmt"
	"net/netip"
	"slices"

	"pgregory.net/rapid"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/internal/testenv/tracer"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/conntrack"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/iptables"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/rules"
)

// scenario is a host that goes from one State to another, and damage that other
// software does to it afterwards.
type scenario struct {
	states []State
	use    []Backend
	damage string
}

func drawScenario(t *rapid.T) scenario {
	s := scenario{use: rapid.SampledFrom([][]Backend{{NFT}, {Legacy}, {NFT, Legacy}}).Draw(t, "backends")}
	strict := rapid.Bool().Draw(t, "strict")
	for i := range 2 {
		s.states = append(s.states, drawState(t, fmt.Sprint(i), strict))
	}
	s.damage = rapid.SampledFrom(damages()).Draw(t, "damage")
	return s
}

const (
	tracedHostIP  = "192.168.7.11"
	tracedOutside = "10.1.8.72"
	tracedInside  = "10.244.9.9"
)

// tracedHosts are the other hosts.
func tracedHosts() []netip.Addr {
	return []netip.Addr{testenv.Addr("192.168.7.12"), testenv.Addr("192.168.7.13")}
}

func drawState(t *rapid.T, label string, strict bool) State {
	s := State{
		HostIP:  testenv.Addr(tracedHostIP),
		Hosts:   append(tracedHosts(), testenv.Addr(tracedHostIP)),
		Inside:  []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")},
		Subnets: []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24")},
		Strict:  strict,
	}
	for i := 1; i <= 3; i++ {
		if netID := rapid.Uint32Range(0, 4).Draw(t, label+" netid"); netID > 0 &&
			!slices.ContainsFunc(s.Hosted, func(h Hosted) bool { return h.NetID == netID }) {
			s.Hosted = append(s.Hosted, Hosted{IP: testenv.Addr(fmt.Sprintf("192.168.7.20%d", i)), NetID: netID})
		} else if rapid.Bool().Draw(t, label+" standby") {
			s.Standby = append(s.Standby, Hosted{IP: testenv.Addr(fmt.Sprintf("192.168.7.20%d", i)), NetID: netID})
		}
	}
	for i := 2; i <= 6; i++ {
		p := Pod{IP: testenv.Addr(fmt.Sprintf("10.244.1.%d", i)), Kind: rapid.SampledFrom([]PodKind{Node, Local, Local, Remote, Remote, Drop, 99}).Draw(t, label+" way")}
		switch {
		case p.Kind == 99:
			continue // no pod
		case p.Kind == Local && len(s.Hosted) == 0:
			p.Kind = Drop
		case p.Kind == Local:
			h := rapid.SampledFrom(s.Hosted).Draw(t, label+" egress IP")
			p.NetID, p.EgressIP = h.NetID, h.IP
		case p.Kind == Remote:
			p.NetID = rapid.Uint32Range(1, 4).Draw(t, label+" network")
			p.Via = []netip.Addr{rapid.SampledFrom(tracedHosts()).Draw(t, label+" host")}
			if source := rapid.SampledFrom([]string{"", "192.168.7.221", "192.168.7.222"}).Draw(t, label+" source"); source != "" {
				p.Sources = []netip.Addr{testenv.Addr(source)}
			}
		}
		for _, n := range rapid.SampledFrom([][]string{nil, nil, {"10.1.8.0/24"}, {"10.1.0.0/16", "203.0.113.0/24"}, {"203.0.113.0/24"}}).Draw(t, label+" excluded") {
			p.Excluded = append(p.Excluded, netip.MustParsePrefix(n))
		}
		s.Pods = append(s.Pods, p)
	}
	return s
}

// planned says, in the words of outcome, what a State has for new connections
// of an address to the outside, and of a network over the overlay.
func (s State) plannedPod(ip netip.Addr) string {
	for _, p := range s.Pods {
		switch {
		case p.IP != ip:
		case slices.ContainsFunc(p.Excluded, func(n netip.Prefix) bool { return n.Contains(testenv.Addr(tracedOutside)) }):
			return "eth0 as " + tracedHostIP
		case p.Kind == Local:
			return "eth0 as " + p.EgressIP.String()
		case p.Kind == Remote:
			return fmt.Sprintf("network %d over the overlay to %v", p.NetID, p.Via)
		case p.Kind == Drop:
			return "dropped"
		default:
			return "eth0 as " + tracedHostIP
		}
	}
	if s.Strict {
		return "dropped"
	}
	return "eth0 as " + tracedHostIP
}

func (s State) plannedNetwork(netID uint32) string {
	for _, h := range s.Hosted {
		if h.NetID == netID {
			return "eth0 as " + h.IP.String()
		}
	}
	return "dropped"
}

// mutant changes what it is named for; the zero value changes nothing.
type mutant struct {
	name  string
	order func([]change) []change
	rule  func(chain, spec string) string // "" takes the rule away
}

// run plays a scenario and returns what went wrong.
func (s scenario) run(m mutant) error {
	h := newTracedHost(bareKernel(s.use), DefaultMarks())
	var flows []*tracedFlow
	before := State{HostIP: s.states[0].HostIP, Strict: false}
	for i, state := range s.states {
		list, stale, idx := s.changes(h.kernel, state)
		if m.order != nil {
			list = m.order(list)
		}
		for n, c := range list {
			if m.rule != nil && c.op == putRules {
				c.transaction.After = mutate(c.transaction.After, m.rule)
			}
			h.do(c, func() { forget(flows, stale, c.sources) })
			h.loadKernel()
			// The very first start on a host with pods comes too late for what
			// they sent before; from then on every moment counts.
			if i == 0 && c.phase < phaseShrink {
				continue
			}
			if err := h.moment(&flows, before, state); err != nil {
				return fmt.Errorf("after change %d of %d (phase %d, op %d, %v): %w", n+1, len(list), c.phase, c.op, c.ip, err)
			}
		}
		if err := h.settled(&flows, state, idx); err != nil {
			return fmt.Errorf("settled in state %d: %w", i, err)
		}
		if again, _, _ := s.changes(h.kernel, state); m.name == "" && len(withoutOverlay(again)) > 0 {
			return fmt.Errorf("state %d: a second pass has %d changes, the first of phase %d", i, len(again), again[0].phase)
		}
		before = state
	}
	return h.damaged(s.damage, flows, before)
}

func withoutOverlay(list []change) []change {
	return slices.DeleteFunc(slices.Clone(list), func(c change) bool { return c.op == mendOverlay || c.op == widenGuard || c.op == narrowGuard })
}

// bareKernel has nothing of ours, and a CNI's MASQUERADE.
func bareKernel(use []Backend) kernel {
	k := desire(State{}, digested(State{}, nil), DefaultMarks(), nil)
	k.rules = map[Backend]iptables.Tables{NFT: {}, Legacy: {}}
	for _, b := range use {
		k.rules[b][rules.NAT] = iptables.Table{Foreign: 1, Base: map[string][]string{
			"POSTROUTING": {"-s 10.244.0.0/16 ! -d 10.244.0.0/16 -j MASQUERADE"},
		}}
	}
	return k
}

// changes is what a pass decides.
func (s scenario) changes(observed kernel, state State) ([]change, staleness, indices) {
	m := DefaultMarks()
	known, used := knownIndices(m, observed)
	g, _, _ := aim(state, digested(state, nil), m, nil, known, used)
	desired, idx := g.desired, union(g.prepared, g.serving)
	list := order(orderInput{
		observed: observed, desired: desired, marks: m, use: s.use, known: known,
		rules: rules.Params{Marks: m, Overlay: overlayName, OverlayPort: 9789, Resets: true, Excluded: true, Indices: idx, Strict: strictNetworks(g.state)},
	})
	return list, newStaleness(m, observed.copied(), desired, known, idx), idx
}

// forget forgets connections, of the given sources alone unless there are none.
func forget(flows []*tracedFlow, s staleness, sources []netip.Addr) {
	for _, f := range flows {
		if len(sources) > 0 && !slices.Contains(sources, f.src) {
			continue
		}
		seen := f.conn.Source
		if !seen.IsValid() {
			seen = f.src
		}
		if s.stale(conntrack.Flow{Source: f.src, Dest: testenv.Addr(tracedOutside), SourceOutside: seen, Mark: f.conn.Mark}) {
			f.conn = &tracer.Conn{}
		}
	}
}

func mutate(t iptables.Table, rule func(chain, spec string) string) iptables.Table {
	own := map[string][]string{}
	for chain, specs := range t.Own {
		own[chain] = nil // others may lead to it
		for _, spec := range specs {
			if spec = rule(chain, spec); spec != "" {
				own[chain] = append(own[chain], spec)
			}
		}
	}
	t.Own = own
	return t
}
