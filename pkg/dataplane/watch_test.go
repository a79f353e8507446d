package dataplane

import (
	"context"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/internal/testenv/netnstest"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/internal/nlutil"
)

// Kills the mutants that forget one of the groups.
func TestWatchTellsOfEachChange(t *testing.T) {
	host, _, _ := netnstest.Host(t, "eth0")
	host.Run(t, `ip link add egress0 type vxlan external dstport 9789; ip link set egress0 up
		ip address add 192.0.2.200/24 dev eth0 label eth0:eip
		ip rule add fwmark 0x1000/0x1000 lookup 2000 priority 90
		ip route add 10.0.0.0/8 dev egress0 table 2000
		tc qdisc add dev egress0 clsact
		iptables-nft -t nat -A POSTROUTING -o lo -j ACCEPT`)
	var calls atomic.Int64
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- netnstest.OnThread(func() error {
			if err := netns.Set(host.NS); err != nil {
				return err
			}
			return watch(ctx, concernsRouting, func() { calls.Add(1) })
		})
	}()
	// It has begun when it notices something; what, is no matter.
	testenv.UntilWithin(t, patience, "the watch to begin", func() bool {
		host.Run(t, "ip link set lo mtu 60000; ip link set lo mtu 65536")
		return calls.Load() > 0
	})
	for _, damage := range []string{
		"ip address delete 192.0.2.200/24 dev eth0",
		"ip rule delete fwmark 0x1000/0x1000 lookup 2000 priority 90",
		"ip route delete 10.0.0.0/8 table 2000",
		"tc qdisc delete dev egress0 clsact",
		"ip link set egress0 down",
		"ip link delete egress0",
		"iptables-nft -t nat -F POSTROUTING",
	} {
		quiet(t, host, &calls)
		host.Run(t, damage)
		testenv.UntilWithin(t, patience, "notice of: "+damage, func() bool { return calls.Load() > 0 })
	}

	stop()
	if err := <-ended; err != nil {
		t.Errorf("watch ended with: %v", err)
	}
}

// quiet waits until what happened so far has been noticed, and resets the
// count: messages come in order, so a mark of our own comes last.
func quiet(t *testing.T, host *netnstest.Machine, calls *atomic.Int64) {
	t.Helper()
	before := calls.Load()
	host.Run(t, "ip link set lo alias mark-$(date +%N)")
	testenv.UntilWithin(t, patience, "notice of a mark", func() bool { return calls.Load() > before })
	calls.Store(0)
}

// Kills the mutant that hears of every route: where there is BGP, those of
// others come and go by the thousand.
func TestRoutesOfOthersAreNoConcern(t *testing.T) {
	host, _, _ := netnstest.Host(t, "eth0")
	host.Do(t, func() {
		s, err := subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_IPV4_ROUTE)
		must(t, err)
		defer s.Close()
		for _, c := range []struct {
			table, to string
			want      bool
		}{
			{"main", "10.9.0.0/16", false},
			{"main", "default", true},
			{"200", "10.9.0.0/16", false},
			{"200", "default", false},
			{"20000", "10.9.0.0/16", false},
			{"2000", "10.9.0.0/16", true},
			{"2001", "10.9.0.0/16", true},
		} {
			for _, op := range []string{"add", "delete"} {
				host.Run(t, "ip route "+op+" "+c.to+" dev eth0 table "+c.table)
				got, err := drain(s, make([]byte, nl.RECEIVE_BUFFER_SIZE), concernsRouting)
				must(t, err)
				if got != c.want {
					t.Errorf("%s of the route to %s in table %s: concern is %t", op, c.to, c.table, got)
				}
			}
		}
	})
}

// Kills the mutant that takes ENOBUFS for an error, or for nothing.
func TestMoreThanTheSocketHoldsIsAConcern(t *testing.T) {
	host, h, link := netnstest.Host(t, "eth0")
	host.Do(t, func() {
		s, err := nl.Subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_IPV4_ROUTE)
		must(t, err)
		defer s.Close()
		must(t, s.SetReceiveBufferSize(1, true))
		for i := range 200 {
			must(t, h.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: nlutil.IPNet(netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(i), 0}), 24))}))
		}
		got, err := drain(s, make([]byte, nl.RECEIVE_BUFFER_SIZE), func(uint16, []byte) bool { return false })
		if err != nil || !got {
			t.Fatalf("200 messages in a buffer for few: concern is %t, error %v", got, err)
		}
	})
}

func TestWatchEndsWithItsContext(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	stop()
	newMachine(t, "host").Do(t, func() {
		must(t, watch(ctx, concernsRouting, func() { t.Error("drift where nothing happened") }))
	})
}

// given: a host whose egress IP, overlay, routes or rules other software destroys;
// when the kernel reports it, then all is back in less than the 2 seconds that
// are promised, without any periodic pass.
func TestEventsBringBackWhatIsDestroyed(t *testing.T) {
	w := newWorld(t, 1, onlyNFT())
	n := w.nodes[0]
	n.host(eip1, 7)
	n.apply(t)
	var notices atomic.Int64
	drifted := make(chan struct{}, 1)
	drift := func() {
		select {
		case drifted <- struct{}{}:
		default:
		}
	}
	ctx, stop := context.WithCancel(t.Context())
	ended, applied := make(chan error, 1), make(chan error, 1)
	go func() {
		ended <- netnstest.OnThread(func() error {
			if err := n.enter(); err != nil {
				return err
			}
			return n.dp.Run(ctx, func() {
				notices.Add(1)
				drift()
			})
		})
	}()
	go func() {
		applied <- netnstest.OnThread(func() error {
			if err := n.enter(); err != nil {
				return err
			}
			for {
				select {
				case <-ctx.Done():
					return nil
				case <-drifted:
					// As the agent does: a pass under which something is
					// destroyed fails, and is made again.
					if _, err := n.dp.Apply(context.WithoutCancel(ctx), n.state); err != nil {
						t.Logf("a pass failed: %v", err)
						drift()
					}
				}
			}
		})
	}()
	testenv.UntilWithin(t, patience, "Run to begin", func() bool {
		n.Run(t, "ip link set lo alias mark-$(date +%N)")
		return notices.Load() > 0
	})
	for damage, there := range map[string]string{
		"ip address delete " + eip1 + "/24 dev eth0":                        "ip -oneline address show label eth0:eip | grep -q " + eip1,
		"ip link delete egress0":                                            "ip route show table 2000 | grep -q '^default via 169.254.77.2 dev egress0'",
		"ip link set egress0 down":                                          "ip route show table 2000 | grep -q '^default via 169.254.77.2 dev egress0'",
		"tc qdisc delete dev egress0 clsact":                                "tc filter show dev egress0 egress | grep -q direct-action",
		"ip route flush table 2000":                                         "ip route show table 2000 | grep -q '^unreachable default'",
		"ip rule delete priority 90":                                        "ip rule | grep -q '^90:'",
		"iptables-nft -t mangle -F":                                         "iptables-nft-save -t mangle | grep -q 'map-set egress-pods'",
		"iptables-nft -t nat -F EGRESSIP-POSTROUTING":                       "iptables-nft-save -t nat | grep -q 'to-source " + eip1 + "'",
		"iptables-nft -t mangle -D PREROUTING -j EGRESSIP-PREROUTING; true": "iptables-nft-save -t mangle | grep -q -- '-A PREROUTING -j EGRESSIP-PREROUTING'",
	} {
		n.Run(t, damage)
		began := time.Now()
		testenv.UntilWithin(t, patience, "back after: "+damage, func() bool { _, err := n.Try(t, there); return err == nil })
		if took := time.Since(began); took > testenv.Stretch(2*time.Second) {
			t.Errorf("%s: back after %v", damage, took)
		}
	}
	stop()
	for _, err := range []error{<-ended, <-applied} {
		if err != nil {
			t.Error(err)
		}
	}
}

// Kills the mutants that change what need not be changed, such as chains, tc
// programs or an address: each pass would call for the next, for ever. Of some
// changes to what is there already, such as of routes, the kernel reports nothing:
// the count of the pass does.
func TestPassThatChangesNothingIsNotHeard(t *testing.T) {
	for _, rules := range []rulesOf{onlyNFT(), bothNFTFirst()} {
		t.Run(rules.name, func(t *testing.T) {
			w := newWorld(t, 1, rules)
			n := w.nodes[0]
			n.host(eip1, 7)
			n.apply(t)
			var calls atomic.Int64
			ctx, stop := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() {
				ended <- netnstest.OnThread(func() error {
					if err := n.enter(); err != nil {
						return err
					}
					return watch(ctx, concernsRouting, func() { calls.Add(1) })
				})
			}()
			mark := func() { n.Run(t, "ip link set lo alias mark-$(date +%N)") }
			testenv.UntilWithin(t, patience, "the watch to begin", func() bool { mark(); return calls.Load() > 0 })
			// The kernel has something to tell of new devices for a while, and
			// two notices may come as one: so many passes are counted.
			const passes = 20
			unheard, changes := 0, 0
			for range passes {
				quiet(t, n.Machine, &calls)
				changes += n.apply(t).Changes
				for i := range int64(2) { // the second mark comes after all else
					mark()
					testenv.UntilWithin(t, patience, "notice of a mark", func() bool { return calls.Load() > i })
				}
				if calls.Load() == 2 {
					unheard++
				}
			}
			if unheard < passes/2 {
				t.Errorf("%d of %d passes that change nothing were not heard", unheard, passes)
			}
			if changes != 0 {
				t.Errorf("%d passes with nothing to do made %d changes", passes, changes)
			}
			stop()
			must(t, <-ended)
		})
	}
}
