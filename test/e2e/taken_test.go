package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/egressip-operator/egressip-operator/test/testbed"
)

// asksEvery is the interval at which hosts ask who else has their egress IPs, where that
// is tested; it is a minute by default. asksAgain is when they surely have asked.
const (
	asksEvery = 10 * time.Second
	asksAgain = asksEvery + 30*time.Second
)

// testTaken: another machine on the LAN has an egress IP that a host claims. While it had it
// first, the host does not take it, and the namespace is dropped; when it takes it later, the
// host keeps it. Either is reported, and over when the machine gives the address up.
func (b *bed) testTaken(t *testing.T) {
	b.withdrawAfter(t)
	taken := false
	set := func(ctx context.Context, verb string) error {
		taken = verb == "add"
		address := fmt.Sprintf("%s/%d dev eth0", b.egressIP, b.bits)
		if b.is6() && taken {
			address += " nodad" // that would look for a host first, and find it
		}
		_, err := b.Exec(ctx, testbed.LANHost, append([]string{"ip", "address", verb}, strings.Fields(address)...)...)
		return err
	}
	b.afterwards(t, func(ctx context.Context) error {
		if !taken {
			return nil
		}
		return set(ctx, "del")
	})
	change := func(verb string) {
		t.Helper()
		if err := set(t.Context(), verb); err != nil {
			t.Fatal(err)
		}
	}
	inUse := func(status string) {
		t.Helper()
		b.within(t, asksAgain, func() error {
			if taken {
				// The host hears what the machine asks for with the address as source, if it must
				// ask. By itself it asks every asksEvery.
				_, _ = b.Exec(t.Context(), testbed.LANHost, "ip", "neigh", "flush", "dev", "eth0")
				_, _ = b.Exec(t.Context(), testbed.LANHost, "ping", "-c1", "-W1", "-I", b.egressIP, b.nodeIP(egressHost))
			}
			return b.hasCondition(t, egressHost, "AddressInUse", status, "")
		})
	}

	change("add")
	b.request(t, egressNamespace, b.egressIP)
	b.claim(t, b.egressIP)
	inUse("True")
	b.dropped(t, b.egress)
	if err := b.hasEgressIP(t, egressHost, b.egressIP, false); err != nil {
		t.Error(err)
	}
	change("del")
	b.leaveWith(t, b.egress, func(testbed.Pod) string { return b.egressIP })
	inUse("False")

	change("add")
	inUse("True")
	if err := b.hasEgressIP(t, egressHost, b.egressIP, true); err != nil {
		t.Error(err)
	}
	change("del")
	inUse("False")
	b.leaveWith(t, b.egress, func(testbed.Pod) string { return b.egressIP })
}
