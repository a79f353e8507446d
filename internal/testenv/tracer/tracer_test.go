package tracer

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
)

// testHost has pods 10.244.1.0/24, of which 10.244.1.2 is marked 0x1 and
// 10.244.1.3 is marked 0x10, which sends it over the overlay.
func testHost(tables Tables) *Host {
	marks := map[netip.Addr]uint32{testenv.Addr("10.244.1.2"): 0x1, testenv.Addr("10.244.1.3"): 0x10}
	return &Host{
		Addr: testenv.Addr("192.168.7.11"), Pods: netip.MustParsePrefix("10.244.1.0/24"),
		Overlay: "egress0", MarkMask: 0xff, Remote: 0x10,
		Inside:   netip.MustParsePrefix("10.0.0.0/8").Contains,
		Backends: []Tables{tables},
		Sets:     map[string]Set{"marked": func(ip netip.Addr) bool { return marks[ip] != 0 }},
		Pairs:    map[string]func(src, dst netip.Addr) bool{"paired": func(src, dst netip.Addr) bool { return marks[src] != 0 && marks[dst] == 0 }},
		Marks:    map[string]map[netip.Addr]uint32{"marked": marks},
		Routes:   map[netip.Addr]Route{testenv.Addr("10.244.1.3"): {Network: 7, Via: []netip.Addr{testenv.Addr("192.168.7.12")}}},
		Networks: map[uint32]uint32{7: 0x1},
	}
}

// testPacket is the first of a connection of pod 10.244.1.2 to the outside.
func testPacket() Packet {
	return Packet{
		In: PodDevice, Src: testenv.Addr("10.244.1.2"), Dst: testenv.Addr("192.0.2.1"), Proto: "tcp", DestPort: 80,
		Dir: Original, State: New, Conn: &Conn{},
	}
}

// Each match holds for a packet, and its negation does not; or the reverse.
//
// Mutant killed: negation ignored.
func TestMatches(t *testing.T) {
	for match, want := range map[string]bool{
		"-i cni0": true, "-i eth0": false,
		"-o eth0": true, "-o egress0": false,
		"-s 10.244.0.0/16": true, "-s 10.245.0.0/16": false,
		"-d 192.0.2.0/24": true, "-d 192.0.3.0/24": false,
		"-p tcp": true, "-p udp": false,
		"--dport 80": true, "--dport 81": false,
		"--tcp-flags SYN,RST SYN": true,
		"--ctdir ORIGINAL":        true, "--ctdir REPLY": false,
		"--ctstate INVALID,NEW": true, "--ctstate ESTABLISHED": false,
		"--ctstatus CONFIRMED":   false,
		"--src-type LOCAL":       false,
		"--match-set marked src": true, "--match-set marked dst": false, "--match-set paired src,dst": true,
	} {
		for rule, want := range map[string]bool{match: want, "! " + match: !want} {
			h := testHost(Tables{"filter": {Base: map[string][]string{"FORWARD": {rule + " -j DROP"}}}})
			got, err := h.Forward(testPacket())
			if err != nil || (got.Dropped != "") != want {
				t.Errorf("%s: %v, error %v", rule, got, err)
			}
		}
	}
}

// Mutant killed: connmark compared with the packet's mark.
func TestMarkMatches(t *testing.T) {
	for spec, want := range map[string]bool{
		"-m mark --mark 0x2/0x3 -j DROP": true, "-m mark --mark 0x4/0x4 -j DROP": false,
		"-m connmark --mark 0x4/0x7 -j DROP": true, "-m connmark ! --mark 0x4/0x7 -j DROP": false,
	} {
		p := testPacket()
		p.Mark, p.Conn.Mark = 0x2, 0x4
		got, err := testHost(Tables{"filter": {Base: map[string][]string{"FORWARD": {spec}}}}).Forward(p)
		if err != nil || (got.Dropped != "") != want {
			t.Errorf("%s: %v, error %v", spec, got, err)
		}
	}
}

// Mutants killed: -g that comes back; -j that does not; RETURN that accepts.
func TestTargets(t *testing.T) {
	own := map[string][]string{
		"PASSES": {"-j RETURN", "-j DROP"},
		"DROPS":  {"-j DROP"},
		"NESTS":  {"-j PASSES", "-g DROPS"},
	}
	for _, c := range []struct {
		name    string
		forward []string
		dropped bool
	}{
		{"nothing", nil, false},
		{"drop", []string{"-j DROP"}, true},
		{"reject", []string{"-j REJECT --reject-with tcp-reset"}, true},
		{"accept before drop", []string{"-j ACCEPT", "-j DROP"}, false},
		{"return before drop", []string{"-j RETURN", "-j DROP"}, false},
		{"jump comes back", []string{"-j PASSES", "-j DROP"}, true},
		{"goto does not", []string{"-g PASSES", "-j DROP"}, false},
		{"a verdict from below", []string{"-j NESTS", "-j ACCEPT"}, true},
		{"no effect", []string{"-j NOTRACK", "-p tcp -j TCPMSS --clamp-mss-to-pmtu"}, false},
		{"mark", []string{"-j MARK --set-xmark 0x6/0xf", "-m mark --mark 0x6/0xf -j DROP"}, true},
		{"mark of the set", []string{"-j SET --map-set marked src --map-mark", "-m mark --mark 0x1/0xff -j DROP"}, true},
		{"connection's mark", []string{"-j CONNMARK --set-xmark 0x6/0xf", "-m connmark --mark 0x6/0xf -j DROP"}, true},
		{"mark saved", []string{
			"-j MARK --set-xmark 0x6/0xf", "-j CONNMARK --save-mark --nfmask 0xf --ctmask 0xf", "-m connmark --mark 0x6/0xf -j DROP",
		}, true},
		{"mark restored by exclusive or", []string{
			"-j MARK --set-xmark 0x6/0xf", "-j CONNMARK --set-xmark 0x3/0xf",
			"-j CONNMARK --restore-mark --nfmask 0x0 --ctmask 0xf", "-m mark --mark 0x5/0xf -j DROP",
		}, true},
	} {
		h := testHost(Tables{"filter": {Own: own, Base: map[string][]string{"FORWARD": c.forward}}})
		got, err := h.Forward(testPacket())
		if err != nil || (got.Dropped != "") != c.dropped {
			t.Errorf("%s: %v, error %v", c.name, got, err)
		}
	}
}

// A connection keeps the source that the first backend to ask gave it.
//
// Mutants killed: every packet gets a new source; the last backend wins.
func TestSourceIsChosenOnce(t *testing.T) {
	nat := func(spec string) Tables {
		return Tables{"nat": {Base: map[string][]string{"POSTROUTING": {spec}}}}
	}
	h := testHost(nat("-j SNAT --to-source 192.168.7.201"))
	h.Backends = append(h.Backends, nat("-j MASQUERADE"))
	p := testPacket()
	for _, state := range []State{New, Established} {
		p.State = state
		if got, err := h.Forward(p); err != nil || got.String() != "eth0 as 192.168.7.201" {
			t.Fatalf("%s: %v, error %v", state, got, err)
		}
		h.Backends = h.Backends[len(h.Backends)-1:] // the other has no say any more
	}
	if got, err := h.Forward(testPacket()); err != nil || got.String() != "eth0 as 192.168.7.11" {
		t.Fatalf("a new connection: %v, error %v", got, err)
	}
}

// Marked packets take the overlay as long as it, its routes and the ip rule are
// there; from the overlay they get their network's mark.
//
// Mutants killed: inside traffic routed to the overlay; the last route ignored.
func TestRoutes(t *testing.T) {
	mark := Tables{"mangle": {Base: map[string][]string{"PREROUTING": {"! -i egress0 -j SET --map-set marked src --map-mark"}}}}
	remote := testPacket()
	remote.Src = testenv.Addr("10.244.1.3")
	inside := remote
	inside.Dst = testenv.Addr("10.244.1.9")
	for _, c := range []struct {
		name   string
		packet Packet
		damage func(*Host)
		want   string
	}{
		{"remote", remote, func(*Host) {}, "network 7 over the overlay to [192.168.7.12]"},
		{"not remote", testPacket(), func(*Host) {}, "eth0 as 10.244.1.2"},
		{"remote, inside", inside, func(*Host) {}, "cni0 as 10.244.1.3"},
		{"no route of the pod", remote, func(h *Host) { h.Routes = nil }, "dropped"},
		{"no overlay", remote, func(h *Host) { h.NoOverlay = true }, "dropped"},
		{"no overlay and no last route", remote, func(h *Host) { h.NoOverlay, h.NoLastRoute = true, true }, "eth0 as 10.244.1.3"},
		{"no ip rule", remote, func(h *Host) { h.NoPolicyRule = true }, "eth0 as 10.244.1.3"},
	} {
		h := testHost(mark)
		c.packet.Conn = &Conn{}
		c.damage(h)
		if got, err := h.Forward(c.packet); err != nil || got.String() != c.want {
			t.Errorf("%s: %v, error %v, wanted %s", c.name, got, err, c.want)
		}
	}
	h := testHost(Tables{"nat": {Base: map[string][]string{"POSTROUTING": {"-m mark --mark 0x1/0xff -j SNAT --to-source 192.168.7.201"}}}})
	if got, err := h.ForwardFromOverlay(7, testPacket()); err != nil || got.String() != "eth0 as 192.168.7.201" {
		t.Errorf("from the overlay: %v, error %v", got, err)
	}
}

// What the tracer does not know is an error, and not a rule without effect.
//
// Mutant killed: unknown matches skipped.
func TestUnknownWordsAreErrors(t *testing.T) {
	for _, spec := range []string{
		"-m comment --comment hello -j DROP",
		"-m set --match-set others src -j DROP",
		"-m set --match-set marked src,dst -j DROP",
		"-m set --match-set paired src -j DROP",
		"--mark 0x1/0x1 -j DROP",
		"--ctstatus ASSURED -j DROP",
		"-p tcp -m tcp --tcp-flags SYN,ACK SYN,ACK -j DROP",
		"-j NFQUEUE",
		"-j NO-SUCH-CHAIN",
		"-j SET --map-set others src --map-mark",
		"-j CONNMARK --and-mark 0x1",
		"-p tcp",
		"",
	} {
		h := testHost(Tables{"filter": {Base: map[string][]string{"FORWARD": {spec}}}})
		if got, err := h.Forward(testPacket()); !errors.Is(err, ErrUnknown) {
			t.Errorf("%q: %v, error %v", spec, got, err)
		}
	}
}
