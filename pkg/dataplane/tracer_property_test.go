package dataplane

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/egressip-operator/egressip-operator/internal/testenv/tracer"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/conntrack"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/iptables"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/rules"
)

// scenario is a host that goes from one State to another, and damage that
// somebody does to it afterwards.
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
func tracedHosts() []netip.Addr { return []netip.Addr{addr("192.168.7.12"), addr("192.168.7.13")} }

func drawState(t *rapid.T, label string, strict bool) State {
	s := State{
		HostIP:  addr(tracedHostIP),
		Hosts:   append(tracedHosts(), addr(tracedHostIP)),
		Inside:  []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")},
		Subnets: []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24")},
		Strict:  strict,
	}
	for i := 1; i <= 3; i++ {
		if netID := rapid.Uint32Range(0, 4).Draw(t, label+" netid"); netID > 0 &&
			!slices.ContainsFunc(s.Hosted, func(h Hosted) bool { return h.NetID == netID }) {
			s.Hosted = append(s.Hosted, Hosted{addr(fmt.Sprintf("192.168.7.20%d", i)), netID})
		} else if rapid.Bool().Draw(t, label+" standby") {
			s.Standby = append(s.Standby, Hosted{addr(fmt.Sprintf("192.168.7.20%d", i)), netID})
		}
	}
	for i := 2; i <= 6; i++ {
		p := Pod{IP: addr(fmt.Sprintf("10.244.1.%d", i)), Kind: rapid.SampledFrom([]PodKind{Node, Local, Local, Remote, Remote, Drop, 99}).Draw(t, label+" way")}
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
				p.Sources = []netip.Addr{addr(source)}
			}
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

// tracedFlow is a connection to the outside that goes on through the changes.
type tracedFlow struct {
	netID uint32 // over the overlay; 0: of a pod here
	src   netip.Addr
	conn  *tracer.Conn
}

func (f *tracedFlow) packet() tracer.Packet {
	p := tracer.Packet{
		In: tracer.PodDevice, Src: f.src, Dst: addr(tracedOutside), Proto: "udp", DestPort: 53,
		Dir: tracer.Original, State: tracer.Established, Conn: f.conn,
	}
	if !f.conn.Confirmed {
		p.State = tracer.New
	}
	return p
}

// mutant changes what it is named for; the zero value changes nothing.
type mutant struct {
	name  string
	order func([]change) []change
	rule  func(chain, spec string) string // "" takes the rule away
}

// run plays a scenario and gives what went wrong.
func (s scenario) run(m mutant) error {
	h := newTracedHost(emptyKernel(s.use), DefaultMarks())
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
			h.do(c, func() { forget(flows, stale) })
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
		if again, _, _ := s.changes(h.kernel, state); m.name == "" && len(withoutScaffold(again)) > 0 {
			return fmt.Errorf("state %d: a second pass has %d changes, the first of phase %d", i, len(again), again[0].phase)
		}
		before = state
	}
	return h.damaged(s.damage, flows, before)
}

func withoutScaffold(list []change) []change {
	return slices.DeleteFunc(slices.Clone(list), func(c change) bool { return c.op == mendOverlay || c.op == widenGuard || c.op == narrowGuard })
}

// emptyKernel has nothing of ours, and a CNI's MASQUERADE.
func emptyKernel(use []Backend) kernel {
	k := desire(State{}, DefaultMarks(), nil)
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
	known, used := knownIndices(m, observed.rules)
	state, _ = usable(state, nil)
	idx, _ := assignIndices(hostedIPs(state), known, used, m)
	standby := standbyIndices(standbyIPs(state), idx, known, used, m)
	desired := desire(state, m, idx)
	idx = union(standby, idx)
	list := order(orderInput{
		observed: observed, desired: desired, marks: m, use: s.use, known: known,
		rules: rules.Params{Marks: m, Overlay: overlayName, OverlayPort: 9789, Resets: true, Indices: idx, Strict: strictNetworks(state)},
	})
	return list, newStaleness(m, observed.copied(), desired, known, idx), idx
}

func forget(flows []*tracedFlow, s staleness) {
	for _, f := range flows {
		seen := f.conn.Source
		if !seen.IsValid() {
			seen = f.src
		}
		if s.stale(conntrack.Flow{Source: f.src, Dest: addr(tracedOutside), SourceOutside: seen, Mark: f.conn.Mark}) {
			f.conn = &tracer.Conn{}
		}
	}
}

// given: egress IPs that a host may have to bear; when it has to, then no rule
// changes; and when it no longer may, none of theirs is left.
//
// Mutant killed: standbyIndices that gives none.
func TestStandbyTakesOverWithoutAChangeOfRules(t *testing.T) {
	s := scenario{use: []Backend{NFT, Legacy}}
	state := State{HostIP: addr(tracedHostIP), Hosts: []netip.Addr{addr(tracedHostIP)}, Hosted: []Hosted{{addr(eip1), 1}}, Standby: []Hosted{{addr(eip2), 2}, {addr(eip3), 3}}}
	k := emptyKernel(s.use)
	changed := func(state State) (n int) {
		list, _, _ := s.changes(k, state)
		for _, c := range list {
			if c.op == putRules {
				n++
			}
			k.do(c, func() {})
		}
		return n
	}
	if changed(state) == 0 {
		t.Fatal("the first pass changes no rules")
	}
	if _, bears := k.addresses[addr(eip2)]; bears {
		t.Errorf("%s is on the uplink, and on standby", eip2)
	}
	state.Hosted, state.Standby = []Hosted{{addr(eip1), 1}, {addr(eip2), 2}, {addr(eip3), 3}}, nil
	if n := changed(state); n > 0 {
		t.Errorf("%d changes of rules to take over", n)
	}
	state.Hosted = state.Hosted[:2]
	changed(state)
	known, _ := knownIndices(DefaultMarks(), k.rules)
	if _, left := known[addr(eip3)]; left || len(known) != 2 {
		t.Errorf("known: %v", known)
	}
}

// sources are all that can send to the outside: pods, an address that may not
// be one, and networks whose pods are on other hosts.
func sources() (pods []netip.Addr, networks []uint32) {
	for i := 2; i <= 7; i++ {
		pods = append(pods, addr(fmt.Sprintf("10.244.1.%d", i)))
	}
	return pods, []uint32{1, 2, 3, 4}
}

// moment sends one packet of every connection, and of a new one from every
// source: it must leave as one of two States has it, or not at all.
func (h *tracedHost) moment(flows *[]*tracedFlow, before, now State) error {
	pods, networks := sources()
	for _, ip := range pods {
		*flows = append(*flows, &tracedFlow{src: ip, conn: &tracer.Conn{}})
	}
	for _, id := range networks {
		*flows = append(*flows, &tracedFlow{netID: id, src: addr(fmt.Sprintf("10.244.2.%d", id)), conn: &tracer.Conn{}})
	}
	for _, f := range *flows {
		may := []string{"dropped", before.plannedPod(f.src), now.plannedPod(f.src)}
		if f.netID != 0 {
			may = []string{"dropped", before.plannedNetwork(f.netID), now.plannedNetwork(f.netID)}
		}
		if err := h.check(f, may); err != nil {
			return err
		}
	}
	*flows = distinct(*flows)
	return nil
}

// distinct leaves one connection of each source and state.
func distinct(flows []*tracedFlow) []*tracedFlow {
	type key struct {
		netID uint32
		src   netip.Addr
		conn  tracer.Conn
	}
	seen := map[key]bool{}
	return slices.DeleteFunc(flows, func(f *tracedFlow) bool {
		k := key{f.netID, f.src, *f.conn}
		defer func() { seen[k] = true }()
		return seen[k]
	})
}

// check sends the next packet of a connection.
func (h *tracedHost) check(f *tracedFlow, may []string) error {
	got, err := h.send(f)
	if err != nil {
		return err
	}
	if !slices.Contains(may, got.String()) {
		return fmt.Errorf("packet of %v (network %d): %v, may be %q", f.src, f.netID, got, may)
	}
	if got.Out == tracer.Uplink && got.Src != h.Addr && !has(h.addresses, got.Src) {
		return fmt.Errorf("packet of %v left as %v, which is not on the uplink", f.src, got.Src)
	}
	// What no NAT touches must not leave by any way of ours.
	for _, state := range []tracer.State{tracer.Invalid, tracer.Untracked} {
		p := f.packet()
		p.State, p.Conn = state, &tracer.Conn{}
		got, err := h.sendPacket(f.netID, p)
		switch {
		case err != nil:
			return err
		case got.Dropped != "":
		case f.netID != 0, !slices.Contains(may, "eth0 as "+tracedHostIP):
			return fmt.Errorf("%s packet of %v (network %d): %v", state, f.src, f.netID, got)
		}
	}
	return nil
}

func (h *tracedHost) send(f *tracedFlow) (tracer.Outcome, error) {
	return h.sendPacket(f.netID, f.packet())
}

func (h *tracedHost) sendPacket(netID uint32, p tracer.Packet) (tracer.Outcome, error) {
	if netID != 0 {
		return h.ForwardFromOverlay(netID, p)
	}
	return h.Forward(p)
}

// expect sends a packet of a pod that is to leave so.
func (h *tracedHost) expect(want string, p tracer.Packet) error {
	got, err := h.Forward(p)
	if err == nil && got.String() != want {
		return fmt.Errorf("%v, wanted: %s", got, want)
	}
	return err
}

// settled expects new connections to be as the State has them, and old ones
// too, or dropped. Answers and traffic inside are as without us.
func (h *tracedHost) settled(flows *[]*tracedFlow, s State, idx indices) error {
	for _, f := range *flows {
		want := s.plannedPod(f.src)
		if f.netID != 0 {
			want = s.plannedNetwork(f.netID)
		}
		if err := h.check(f, []string{want, "dropped"}); err != nil {
			return fmt.Errorf("old connection: %w", err)
		}
		// It began with one source, at another host, and ends with it.
		r, goes := h.Routes[f.src]
		if !goes || f.netID != 0 || !f.conn.RemoteSource.IsValid() {
			continue
		}
		if got, err := h.send(f); err != nil {
			return err
		} else if got.OverOverlay() && r.Source.IsValid() && r.Source != f.conn.RemoteSource {
			return fmt.Errorf("old connection of %v began as %v and goes on as %v", f.src, f.conn.RemoteSource, r.Source)
		}
	}
	pods, networks := sources()
	for _, ip := range pods {
		f := &tracedFlow{src: ip, conn: &tracer.Conn{}}
		for range 2 { // its first packet and its second
			if err := h.check(f, []string{s.plannedPod(ip)}); err != nil {
				return fmt.Errorf("new connection: %w", err)
			}
		}
		answer := tracer.Packet{
			In: tracer.PodDevice, Src: ip, Dst: addr(tracedOutside), Proto: "tcp",
			Dir: tracer.Reply, State: tracer.Established, Conn: &tracer.Conn{Confirmed: true, Bound: true},
		}
		if err := h.expect("eth0 as "+ip.String(), answer); err != nil {
			return fmt.Errorf("answer of %v to a client outside: %w", ip, err)
		}
		inside := (&tracedFlow{src: ip, conn: &tracer.Conn{}}).packet()
		inside.Dst = addr(tracedInside)
		if err := h.expect("eth0 as "+ip.String(), inside); err != nil {
			return fmt.Errorf("%v to another pod: %w", ip, err)
		}
		forged := (&tracedFlow{src: ip, conn: &tracer.Conn{}}).packet()
		forged.Dst, forged.DestPort = addr("192.168.7.12"), 9789
		if err := h.expect("dropped", forged); err != nil {
			return fmt.Errorf("%v to the overlay's port of a host: %w", ip, err)
		}
	}
	for _, id := range networks {
		f := &tracedFlow{netID: id, src: addr(fmt.Sprintf("10.244.2.%d", id)), conn: &tracer.Conn{}}
		for range 2 {
			if err := h.check(f, []string{s.plannedNetwork(id)}); err != nil {
				return fmt.Errorf("new connection: %w", err)
			}
		}
	}
	if len(idx) != len(s.Hosted)+len(s.Standby) {
		return fmt.Errorf("%d indices for %d egress IPs and %d on standby", len(idx), len(s.Hosted), len(s.Standby))
	}
	return nil
}

func damages() []string {
	return []string{"none", "no ip rule", "no overlay", "no overlay and no last route", "a set entry", "all set entries", "mangle PREROUTING flushed", "mangle flushed", "filter flushed"}
}

// damaged expects every packet, old or new, to leave as planned or not at all
// while something of ours is missing.
func (h *tracedHost) damaged(damage string, flows []*tracedFlow, s State) error {
	h.kernel = h.copied()
	flush := func(stage rules.Stage, base string) {
		for b := range h.rules {
			t := h.rules[b][stage]
			t.Base = maps.Clone(t.Base)
			for name := range t.Base {
				if base == "" || name == base {
					delete(t.Base, name)
				}
			}
			h.rules[b][stage] = t
		}
	}
	switch damage {
	case "no ip rule":
		h.NoPolicyRule = true
	case "no overlay":
		h.NoOverlay = true
	case "no overlay and no last route":
		h.NoOverlay, h.NoLastRoute = true, true
	case "a set entry":
		delete(h.kernel.pods, addr("10.244.1.2"))
	case "all set entries":
		clear(h.kernel.pods)
	case "mangle PREROUTING flushed":
		flush(rules.Mangle, "PREROUTING")
	case "mangle flushed":
		// The connections from other hosts' pods have no other lock.
		flush(rules.Mangle, "")
		flows = nil
	case "filter flushed":
		flush(rules.Filter, "")
	}
	h.loadKernel()
	pods, _ := sources()
	for _, ip := range pods {
		flows = append(flows, &tracedFlow{src: ip, conn: &tracer.Conn{}})
	}
	for _, f := range flows {
		want := s.plannedPod(f.src)
		if f.netID != 0 {
			want = s.plannedNetwork(f.netID)
		}
		if got, err := h.send(f); err != nil {
			return err
		} else if got.String() != want && got.Dropped == "" {
			return fmt.Errorf("damage %q: packet of %v (network %d): %v, planned: %s", damage, f.src, f.netID, got, want)
		}
	}
	return nil
}

func mutate(t iptables.Table, rule func(chain, spec string) string) iptables.Table {
	own := map[string][]string{}
	for chain, specs := range t.Own {
		for _, spec := range specs {
			if spec = rule(chain, spec); spec != "" {
				own[chain] = append(own[chain], spec)
			}
		}
	}
	t.Own = own
	return t
}

// After every prefix of every list of changes, every packet leaves with the
// source that the old State or the new one plans, or is dropped; in the end,
// with the new one's. The mutants killed stand in TestMutantsOfRulesAndOrder.
func TestPropertyNoPacketLeaksAtAnyMoment(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		if err := drawScenario(t).run(mutant{}); err != nil {
			t.Fatal(err)
		}
	})
}

func TestMutantsOfRulesAndOrder(t *testing.T) {
	without := func(chain, part string) func(string, string) string {
		return func(c, spec string) string {
			if c == chain && strings.Contains(spec, part) {
				return ""
			}
			return spec
		}
	}
	move := func(from, to phase) func([]change) []change {
		return func(list []change) []change {
			list = slices.Clone(list)
			for i := range list {
				if list[i].phase == from {
					list[i].phase = to
				}
			}
			slices.SortStableFunc(list, func(a, b change) int { return int(a.phase) - int(b.phase) })
			return list
		}
	}
	leave := func(o op) func([]change) []change {
		return func(list []change) []change {
			return slices.DeleteFunc(slices.Clone(list), func(c change) bool { return c.op == o })
		}
	}
	const unnatable = "-m conntrack --ctstate INVALID,UNTRACKED"
	remote := fmt.Sprintf("%#x/%#x", DefaultMarks().Remote(), DefaultMarks().Remote())
	for _, m := range []mutant{
		{name: "answers are marked too", rule: func(c, spec string) string {
			return strings.Replace(spec, "-m conntrack --ctdir ORIGINAL -j SET", "-j SET", 1)
		}},
		{name: "second lock removed", rule: without(rules.ChainForward, "--mark "+remote+" -j DROP")},
		{name: "INVALID passes", rule: without(rules.ChainForward, unnatable)},
		{name: "INVALID passes from the overlay", rule: without(rules.ChainFrom, unnatable)},
		{name: "unserved networks pass", rule: without(rules.ChainFrom, "--mark 0x0/")},
		{name: "connections are not pinned", rule: without(rules.ChainPinned, "-j DROP")},
		{name: "overlay's packets are masqueraded", rule: without(rules.ChainPostrouting, "-o "+overlayName)},
		{name: "third lock removed", rule: without(rules.ChainLocked, "-j DROP")},
		{name: "marks stay on packets inside", rule: without(rules.ChainForward, "-m set --match-set "+setInside+" dst")},
		{name: "pods may reach the overlay's port", rule: without(rules.ChainForward, "--dport")},
		{name: "marked before the rules", order: move(phaseMark, phaseGrow)},
		{name: "SNAT taken away before the mark", order: move(phaseRewrite, phaseLock)},
		{name: "unlocked before connections are forgotten", order: move(phaseUnlock, phaseLock)},
		{name: "served before the address is there", order: move(phaseAddress, phaseUnroute)},
		{name: "address released before its packets end", order: move(phaseRelease, phaseGrow)},
		{name: "network still served after its IP moved on", order: leave(delServed)},
		{name: "connections not forgotten", order: leave(forgetFlows)},
		{name: "never locked", order: func(list []change) []change {
			return slices.DeleteFunc(slices.Clone(list), func(c change) bool { return c.set == setLocked })
		}},
	} {
		t.Run(m.name, func(t *testing.T) {
			scenarios := rapid.Custom(drawScenario)
			for i := range 500 {
				if err := scenarios.Example(i).run(m); err != nil {
					t.Logf("killed by scenario %d: %v", i, err)
					return
				}
			}
			t.Fatal("the mutant lives: 500 scenarios do not tell it from the original")
		})
	}
}
