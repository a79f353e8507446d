package dataplane

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/warning"
)

// given: a host whose overlay cannot carry IPv6, because the uplink's MTU leaves less than IPv6
// needs, or because IPv6 is disabled there; then egress IPs of IPv6 are neither on it nor
// used from it, the report says why, and IPv4 goes on; once that is over, so does IPv6.
//
// Mutants killed: small-uplink-serves-ipv6, disabled-overlay-serves-ipv6.
func TestOverlayThatCannotCarryIPv6(t *testing.T) {
	for _, rules := range servingIPv6() {
		t.Run(rules.name, func(t *testing.T) {
			w := newDualWorld(t, rules)
			w.applyAll(t)
			w.membersSend(t)
			for _, c := range []struct {
				name, damage, repair string
				why                  error
			}{
				{"MTU", "ip link set eth0 mtu 1329", "ip link set eth0 mtu 1330", errIPv6MTU},
				{"disabled", "sysctl -qw net.ipv6.conf.egress0.disable_ipv6=1", "sysctl -qw net.ipv6.conf.egress0.disable_ipv6=0", errNoOverlayIPv6},
			} {
				for n, stopped := range map[*node][]uint16{w.n1: {9101}, w.n2: {9101, 9102, 9103}} {
					w.seen6.says(c.name + " on " + n.Name)
					n.Run(t, c.damage)
					r, err := n.tryApply(t)
					if !r.IPv6.Known || !strings.HasPrefix(r.IPv6.Reason, c.why.Error()) || !strings.Contains(warning.Lines(r.Warnings), "IPv6NotServed (IPv6): ") {
						t.Errorf("%s of %s: reported are %+v, and warnings %v", c.name, n.Name, r.IPv6, r.Warnings)
					}
					if hosts := n == w.n2; (err != nil) != hosts || r.Hosted[0].Configured == hosts {
						t.Errorf("%s of %s: hosted are %+v: %v", c.name, n.Name, r.Hosted, err)
					}
					w.silent6(t, stopped...)
					for _, p := range w.members() {
						p.leaves(t, eip1)
					}
					n.Run(t, c.repair)
					if r := n.apply(t); r.IPv6.Reason != "" {
						t.Errorf("%s of %s is over: reported are %+v", c.name, n.Name, r.IPv6)
					}
					for _, p := range w.members() {
						p.leaves6(t, eip61)
					}
					n.settled(t)
				}
			}
		})
	}
}

// given: pods that send packets of IPv6 with an extension header; then these leave with the
// egress IP, or not at all, like all others.
func TestExtensionHeaders(t *testing.T) {
	for _, rules := range servingIPv6() {
		t.Run(rules.name, func(t *testing.T) {
			w := newDualWorld(t, rules)
			unknown := w.n3.addPod6(t, "unknown", 4)
			w.applyAll(t)
			for p, to := range map[*podMachine]uint16{w.here: 9301, w.there: 9302, w.third: 9303} {
				w.seen6.only(to, eip61)
				p.sendsWithOptions(t, to)
			}
			for p, to := range map[*podMachine]uint16{w.shunt: 9304, unknown: 9305} {
				w.seen6.only(to)
				p.sendsWithOptions(t, to)
			}
			w.seen6.only(9306, w.plain.ip6.String())
			w.plain.sendsWithOptions(t, 9306)
			for port, source := range map[uint16]string{9301: eip61, 9302: eip61, 9303: eip61, 9306: w.plain.ip6.String()} {
				testenv.UntilWithin(t, patience, "packets with options come from "+source, func() bool { return w.seen6.from(port, source) > 20 })
			}
			w.linger(t)
		})
	}
}

// sendsWithOptions has a pod send UDP packets with destination options to a port of the bastion
// until the test ends, each from a port of its own.
func (p *podMachine) sendsWithOptions(t *testing.T, port uint16) {
	t.Helper()
	to := unix.SockaddrInet6{Port: int(port), Addr: testenv.Addr(bastionIP6).As16()}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var all sync.WaitGroup
	all.Go(func() {
		until(ctx, p, 2*time.Millisecond, func() {
			fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return
			}
			defer unix.Close(fd)
			padding := string([]byte{0, 0, 1, 4, 0, 0, 0, 0}) // the option PadN
			if unix.SetsockoptString(fd, unix.IPPROTO_IPV6, unix.IPV6_DSTOPTS, padding) == nil {
				_ = unix.Sendto(fd, []byte("x"), 0, &to)
			}
		})
	})
	t.Cleanup(func() {
		cancel()
		all.Wait()
	})
}
