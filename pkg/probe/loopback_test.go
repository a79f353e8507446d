package probe

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
)

// patience bounds every wait: far more than is ever needed.
const patience = 30 * time.Second

// loopback is a host: an address of 127.0.0.0/8.
func loopback(last byte) netip.Addr { return netip.AddrFrom4([4]byte{127, 0, 88, last}) }

// freePort is a UDP port that nobody uses on any address. It is below those that
// the kernel gives to clients: between here and its use, none takes it.
func freePort(tb testing.TB) uint16 {
	tb.Helper()
	for range 100 {
		port := 20000 + rand.IntN(10000)
		conn, err := net.ListenUDP("udp4", &net.UDPAddr{Port: port})
		if err != nil {
			continue
		}
		if err := conn.Close(); err != nil {
			tb.Fatal(err)
		}
		return uint16(port)
	}
	tb.Fatal("no UDP port is free")
	return 0
}

// spawn runs something until the returned function, or the test's end, ends it.
func spawn(tb testing.TB, run func(context.Context) error) (end func()) {
	tb.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() {
		if err := run(ctx); err != nil {
			tb.Error(err)
		}
	})
	end = func() {
		cancel()
		done.Wait()
	}
	tb.Cleanup(end)
	return end
}

func newResponder(tb testing.TB, c ResponderConfig, sources ...netip.Addr) *Responder {
	tb.Helper()
	r, err := NewResponder(c)
	if err != nil {
		tb.Fatal(err)
	}
	if len(sources) > 0 {
		r.SetSources(sources)
	}
	return r
}

// mute is a host that is dead: it takes the probes and says nothing, and neither
// does its kernel. A closed port would be refused.
func mute(tb testing.TB, addr netip.Addr, port uint16) (end func()) {
	tb.Helper()
	var conn *net.UDPConn
	testenv.Until(tb, "the port is free", func() bool {
		var err error
		conn, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr, port)))
		return err == nil
	})
	end = func() { _ = conn.Close() }
	tb.Cleanup(end)
	return end
}

func TestHostsComeAndGo(t *testing.T) {
	port, self := freePort(t), loopback(1)
	config := DefaultConfig()
	// The machine that runs the tests may be busy; not to be timed here.
	config.HoldDown = 100 * time.Millisecond
	var calls sync.Map
	var p *Prober
	p, err := NewProber(ProberConfig{Config: config, Source: self, Port: port, OnChange: func() {
		calls.Store(len(p.Offline()), true) // calls back without deadlock
	}})
	if err != nil {
		t.Fatal(err)
	}
	names := []string{"node2", "node3", "node4"}
	var targets []Target
	var kill []func()
	start := func(i int) func() {
		r := newResponder(t, ResponderConfig{Host: names[i], Addr: targets[i].Addr, Port: port, SourceRate: 1000}, self)
		return spawn(t, r.Run)
	}
	for i, name := range names {
		targets = append(targets, Target{Name: name, Addr: loopback(byte(i + 2))})
		kill = append(kill, start(i))
	}
	if err := p.SetTargets(targets); err != nil {
		t.Fatal(err)
	}
	if v := p.View(); v.Settled || v.Isolated || len(v.Offline) != 0 {
		t.Errorf("before the first probe: %+v", v)
	}
	spawn(t, p.Run)
	online := func(names ...string) func() bool {
		return func() bool {
			hosts := p.Hosts()
			for _, name := range names {
				if hosts[name].State != Online {
					return false
				}
			}
			return true
		}
	}
	testenv.Until(t, "all are online", online(names...))

	// The agent goes, the host stays: its kernel refuses.
	kill[0]()
	before := p.Stats().Refused
	testenv.Until(t, "probes are refused", func() bool { return p.Stats().Refused > before+5 })
	if p.Offline()["node2"] {
		t.Error("a host without its agent is offline")
	}
	// The host dies.
	mouth := mute(t, targets[0].Addr, port)
	died := time.Now()
	testenv.Until(t, "node2 is offline", func() bool { return p.Offline()["node2"] })
	t.Logf("offline %v after a death without an agent", time.Since(died))
	if v := p.View(); v.Isolated || len(v.Offline) != 1 || p.Hosts()["node2"].Cause != Silent {
		t.Errorf("one host died: %+v, %+v", v, p.Hosts()["node2"])
	}
	// It comes back with another agent.
	mouth()
	kill[0] = start(0)
	testenv.Until(t, "node2 is back", online("node2"))
	if h := p.Hosts()["node2"]; h.Restarts == 0 {
		t.Errorf("the other agent was not seen: %+v", h)
	}

	// A host that dies with its agent: found in time.
	kill[1]()
	mute(t, targets[1].Addr, port)
	// The last refusal came before now.
	testenv.Until(t, "node3 is offline", func() bool { return p.Offline()["node3"] })

	// The others, too: isolated.
	kill[0]()
	kill[2]()
	mute(t, targets[0].Addr, port)
	mute(t, targets[2].Addr, port)
	testenv.Until(t, "all are offline", func() bool { return len(p.Offline()) == 3 })
	if !p.View().Isolated {
		t.Error("nobody answers: isolated is not told")
	}
	testenv.Until(t, "changes were told", func() bool {
		_, one := calls.Load(1)
		_, three := calls.Load(3)
		return one && three
	})
	// Off the list is off the view.
	if err := p.SetTargets(nil); err != nil {
		t.Fatal(err)
	}
	if v := p.View(); len(v.Offline) != 0 || v.Isolated || !v.Settled {
		t.Errorf("without targets: %+v", v)
	}
}

// A host dies at once, with its agent, as at a power failure. The socket stays,
// so that nothing refuses.
func TestPowerFailureIsFoundInTime(t *testing.T) {
	port, self := freePort(t), loopback(1)
	config := DefaultConfig()
	p, err := NewProber(ProberConfig{Config: config, Source: self, Port: port})
	if err != nil {
		t.Fatal(err)
	}
	r := newResponder(t, ResponderConfig{Host: "node2", Addr: loopback(2), Port: port}, self)
	spawn(t, r.Run)
	if err := p.SetTargets([]Target{{Name: "node2", Addr: loopback(2)}}); err != nil {
		t.Fatal(err)
	}
	spawn(t, p.Run)
	testenv.Until(t, "node2 is online", func() bool { return p.Hosts()["node2"].State == Online })
	r.SetSources(nil) // it hears nothing more, and its kernel refuses nothing
	died := time.Now()
	testenv.Until(t, "node2 is offline", func() bool { return p.Offline()["node2"] })
	took := p.Hosts()["node2"].OfflineSince.Sub(died)
	t.Logf("offline %v after the death; bound %v", took, config.DetectionTime())
	// Twice as much again for a busy machine.
	if took > 3*config.DetectionTime() {
		t.Errorf("took %v", took)
	}
	if r.Stats().Foreign == 0 {
		t.Error("probes did not arrive: the test shows nothing")
	}
	r.SetSources([]netip.Addr{self})
	testenv.Until(t, "node2 is back", func() bool { return p.Hosts()["node2"].State == Online })
	if h := p.Hosts()["node2"]; h.ReturnedAt.Before(h.HoldUntil) || h.Restarts != 0 {
		t.Errorf("back before its hold-down: %+v", h)
	}
}

func TestBrokenDataPlaneIsOffline(t *testing.T) {
	port, self := freePort(t), loopback(1)
	config := DefaultConfig()
	config.HoldDown = 0
	var mu sync.Mutex
	broken := false
	r := newResponder(t, ResponderConfig{Host: "node2", Addr: loopback(2), Port: port, Ready: func() bool {
		mu.Lock()
		defer mu.Unlock()
		return !broken
	}}, self)
	spawn(t, r.Run)
	p, err := NewProber(ProberConfig{Config: config, Source: self, Port: port})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.SetTargets([]Target{{Name: "node2", Addr: loopback(2)}}); err != nil {
		t.Fatal(err)
	}
	spawn(t, p.Run)
	for _, want := range []State{Online, Offline, Online} {
		mu.Lock()
		broken = want == Offline
		mu.Unlock()
		testenv.Until(t, "node2 is "+want.String(), func() bool { return p.Hosts()["node2"].State == want })
		if h := p.Hosts()["node2"]; want == Offline && (h.Cause != NotReady || p.View().Isolated) {
			t.Errorf("%+v", h)
		}
	}
	if r.Stats().NotReady == 0 {
		t.Error("\"not ready\" was not said")
	}
}

// A stranger, a loud host, and bytes that are no question get no answer.
func TestResponderAnswersQuestionsOfHostsOnly(t *testing.T) {
	port, host, stranger := freePort(t), loopback(1), loopback(9)
	now := epoch() // stands still: the rate is a number of datagrams
	r := newResponder(t, ResponderConfig{
		Host: "node2", Addr: loopback(2), Port: port, SourceRate: 10, Now: func() time.Time { return now },
	}, host)
	spawn(t, r.Run)
	from := func(addr netip.Addr) *net.UDPConn {
		c, err := net.DialUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr, 0)), net.UDPAddrFromAddrPort(netip.AddrPortFrom(loopback(2), port)))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	send := func(c *net.UDPConn, m Message) {
		if _, err := c.Write(m.Append(nil)); err != nil {
			t.Fatal(err)
		}
	}
	question := Message{Kind: Question, Sequence: 5, Token: 6, Instance: 7, Host: 8}
	friend, other := from(host), from(stranger)
	testenv.Until(t, "the stranger is counted", func() bool {
		_, _ = other.Write(question.Append(nil)) // refused until the responder listens
		return r.Stats().Foreign > 0
	})
	send(friend, Message{Kind: Answer})
	if _, err := friend.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	testenv.Until(t, "what is no question is counted", func() bool { return r.Stats().Malformed == 2 })
	for range 20 {
		send(friend, question)
	}
	testenv.Until(t, "the loud host is counted", func() bool { return r.Stats().Limited == 12 })
	if got := r.Stats().Answered; got != 8 {
		t.Errorf("%d answers; two of ten were used up by what was no question", got)
	}
	b := make([]byte, maxDatagram)
	if err := friend.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	for range 8 {
		n, err := friend.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		m, err := Parse(b[:n])
		want := Message{Kind: Answer, Ready: true, Sequence: 5, Token: 6, Instance: r.instance, Host: HostHash("node2")}
		if err != nil || m != want || n != Size {
			t.Fatalf("%d bytes: %+v, %v", n, m, err)
		}
	}
	// All has been handled: what is not there now does not come.
	for _, c := range []*net.UDPConn{friend, other} {
		if err := c.SetReadDeadline(time.Now()); err != nil {
			t.Fatal(err)
		}
		if n, err := c.Read(b); err == nil {
			t.Errorf("%d bytes more to %v", n, c.LocalAddr())
		}
	}
}

func TestBucket(t *testing.T) {
	var b bucket
	now := epoch()
	taken := 0
	for range 1000 { // ten seconds, a hundred questions a second
		if b.take(now, 10) {
			taken++
		}
		now = now.Add(10 * time.Millisecond)
	}
	// Ten at once, and ten a second.
	if taken < 108 || taken > 111 {
		t.Errorf("%d of 1000 in ten seconds", taken)
	}
}

// A responder that does not know the hosts yet would look dead: it does not
// listen, and the kernel says that there is no agent.
func TestResponderListensOnceItKnowsTheHosts(t *testing.T) {
	port, self := freePort(t), loopback(1)
	r := newResponder(t, ResponderConfig{Host: "node2", Addr: loopback(2), Port: port})
	spawn(t, r.Run)
	p, err := NewProber(ProberConfig{Config: DefaultConfig(), Source: self, Port: port})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.SetTargets([]Target{{Name: "node2", Addr: loopback(2)}}); err != nil {
		t.Fatal(err)
	}
	spawn(t, p.Run)
	testenv.Until(t, "probes are refused", func() bool { return p.Stats().Refused > 3 })
	if h := p.Hosts()["node2"]; h.State == Offline || h.Instance != 0 {
		t.Errorf("%+v", h)
	}
	r.SetSources([]netip.Addr{self})
	testenv.Until(t, "node2 answers", func() bool { return p.Hosts()["node2"].Instance != 0 })
}

func TestWhatCannotBeProbed(t *testing.T) {
	if _, err := NewProber(ProberConfig{}); err == nil {
		t.Error("a prober without numbers works")
	}
	if _, err := NewProber(ProberConfig{Config: DefaultConfig(), Source: netip.MustParseAddr("::ffff:127.0.0.1")}); err == nil {
		t.Error("a prober with a source of IPv4 in the form of IPv6 works")
	}
	for _, c := range []ResponderConfig{
		{Addr: loopback(2)},
		{Host: "node2"},
		{Host: "node2", Addr: loopback(2), SourceRate: -1},
	} {
		if _, err := NewResponder(c); err == nil {
			t.Errorf("a responder works with %+v", c)
		}
	}
	p, err := NewProber(ProberConfig{Config: DefaultConfig()})
	if err != nil {
		t.Fatal(err)
	}
	err = p.SetTargets([]Target{
		{Name: "", Addr: loopback(2)},
		{Name: "node3", Addr: netip.IPv6Loopback()},
		{Name: "node4", Addr: netip.IPv4Unspecified()},
		{Name: "node5", Addr: loopback(5)},
		{Name: "node5", Addr: loopback(6)},
	})
	var all interface{ Unwrap() []error }
	if !errors.As(err, &all) || len(all.Unwrap()) != 4 {
		t.Errorf("errors: %v", err)
	}
	if hosts := p.Hosts(); len(hosts) != 1 {
		t.Errorf("probed: %v", hosts)
	}
	// An address that is not this machine's is said at once.
	p, err = NewProber(ProberConfig{Config: DefaultConfig(), Source: netip.MustParseAddr("192.0.2.1")})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Run(t.Context()); err == nil {
		t.Error("probes from an address that is not there")
	}
}

// A host with an address of IPv6 is probed as one of IPv4 is, also on the direct way: it
// answers, and without its agent its kernel refuses. A host of the other family is none of its
// targets.
//
// Mutant killed: refusals-are-of-ipv4.
func TestProbesOverIPv6(t *testing.T) {
	port, self := freePort(t), netip.IPv6Loopback()
	p, err := NewProber(ProberConfig{Config: DefaultConfig(), Source: self, Port: port, Device: "lo"})
	if err != nil {
		t.Fatal(err)
	}
	targets := []Target{{Name: "node2", Addr: self, Overlay: true}}
	if err := p.SetTargets(append(targets, Target{Name: "node3", Addr: loopback(3)})); err == nil || len(p.Hosts()) != 1 {
		t.Errorf("targets of both families: %v; %v", err, p.Hosts())
	}
	if err := p.SetTargets(targets); err != nil {
		t.Fatal(err)
	}
	spawn(t, p.Run)
	testenv.Until(t, "probes are refused", func() bool { return p.Stats().Refused > 3 })
	spawn(t, newResponder(t, ResponderConfig{Host: "node2", Addr: self, Port: port, SourceRate: 1000}, self).Run)
	testenv.Until(t, "the host answers", func() bool { return p.Hosts()["node2"].Instance != 0 })
	testenv.Until(t, "it is online", func() bool { return p.Hosts()["node2"].State == Online })
}
