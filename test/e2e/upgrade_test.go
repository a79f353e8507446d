package e2e

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/egressip-operator/egressip-operator/test/testbed"
)

// formerVariable names the folder in which "make upgrade" has built a former version: tree is
// its source, image.tar its image.
const formerVariable = "EGRESSIP_TEST_FORMER"

// sendsAfter is how long the probers go on after each change.
const sendsAfter = 15 * time.Second

// TestUpgrade upgrades the operator from a former version, and goes back as CHANGELOG says it,
// while pods with an egress IP, pods without one and a node itself send: none of their packets
// has a wrong source, no connection ends, and no prober is without a new one for long.
func TestUpgrade(t *testing.T) {
	former := os.Getenv(formerVariable)
	if former == "" {
		t.Skipf("%s names no former version: see \"make upgrade\"", formerVariable)
	}
	former, err := filepath.Abs(former)
	if err != nil {
		t.Fatal(err)
	}
	b := newBedOf(t, testbed.Options{Prefix: "upgrade", Backend: testbed.NFT, Images: []string{filepath.Join(former, "image.tar")}})
	back := func(t *testing.T) {
		t.Helper()
		chart := filepath.Join(former, "tree", "charts", "egressip-operator")
		if err := b.InstallChart(t.Context(), chart, "image.tag=former"); err != nil {
			t.Fatal(err)
		}
	}
	back(t)
	b.eventually(t, func() error {
		_, err := b.Kubectl(t.Context(), append([]string{"get", "hostsubnets"}, b.Nodes()...)...)
		return err
	})
	probers := b.probers(t)
	host := b.hostSends(t)
	b.givenEgressIP(t)
	streams := b.streams(t)

	for _, s := range []struct {
		name string
		do   func(*testing.T)
	}{
		{"upgrade", b.install},
		{"rules in iptables, before going back", func(t *testing.T) {
			t.Helper()
			b.values = []string{"backend=iptables"}
			b.install(t)
			b.eventually(t, func() error { return b.backendIs(t, "iptables") })
		}},
		{"going back", back},
		{"upgrade again", func(t *testing.T) { t.Helper(); b.values = nil; b.install(t) }},
	} {
		began := time.Now()
		if !t.Run(s.name, func(t *testing.T) {
			s.do(t)
			b.leaveWith(t, b.egress, func(testbed.Pod) string { return b.egressIP })
			for until := time.Now().Add(sendsAfter); time.Now().Before(until); {
				b.leaveWith(t, b.plain, b.nodeAddress)
				b.leaveWith(t, b.egress, func(testbed.Pod) string { return b.egressIP })
			}
		}) {
			break
		}
		t.Logf("%s: done after %s; %s", s.name, time.Since(began).Round(time.Second), probers.gaps())
	}
	streams(t)
	host(t)
	probers.verify(t)
}

// streams has each pod of egressNamespace send and receive over one TCP connection; the function
// that it returns ends that, and fails the test for each answer that did not come.
func (b *bed) streams(t *testing.T) (verify func(*testing.T)) {
	t.Helper()
	waits := map[string]func(bool) (string, error){}
	for _, p := range b.egress {
		wait, err := b.Background(t.Context(), p.Place(), "traffic", "stream", "-every", "100ms", "-for", time.Hour.String(), "-timeout", "2s", b.echo())
		if err != nil {
			t.Fatal(err)
		}
		waits[p.Node] = wait
	}
	return func(t *testing.T) {
		t.Helper()
		for node, wait := range waits {
			out, err := wait(true)
			if err != nil {
				t.Logf("the stream from %s: %v", node, err)
			}
			answered, bad := b.readResults(t, out)
			t.Logf("the stream from %s: %d answers", node, answered)
			if answered == 0 || len(bad) > 0 {
				t.Errorf("the stream from %s: %d answers, and bad ones: %v", node, answered, bad[:min(3, len(bad))])
			}
		}
	}
}

// backendIs reports whether all agents have their rules there.
func (b *bed) backendIs(t *testing.T, want string) error {
	t.Helper()
	out, err := b.Kubectl(t.Context(), "get", "hostsubnets", "-o", "jsonpath={.items[*].status.agent.backend}")
	if err != nil {
		return err
	}
	for got := range strings.FieldsSeq(out) {
		if !strings.HasPrefix(got, want) {
			return fmt.Errorf("backends are %s, want %s", out, want)
		}
	}
	return nil
}

// hostSends has the egress host itself make new connections all the time; the function that it
// returns ends that and fails the test for each that was seen from another address than the
// node's.
func (b *bed) hostSends(t *testing.T) (verify func(*testing.T)) {
	t.Helper()
	wait, err := b.Background(t.Context(), egressHost, "traffic", "watch",
		"-every", "100ms", "-for", time.Hour.String(), "-timeout", "2s", "http://"+b.lanHost+":8080/")
	if err != nil {
		t.Fatal(err)
	}
	return func(t *testing.T) {
		t.Helper()
		out, err := wait(true)
		if err != nil {
			t.Logf("the prober of %s: %v", egressHost, err)
		}
		right, wrong, lost := 0, 0, 0
		for line := range strings.Lines(out) {
			var r struct{ Saw string }
			if err := json.Unmarshal([]byte(line), &r); err != nil {
				t.Errorf("strange line %q: %v", line, err)
			}
			saw, err := netip.ParseAddrPort(r.Saw)
			switch {
			case r.Saw == "":
				lost++
			case err == nil && saw.Addr().String() == b.nodeIP(egressHost):
				right++
			default:
				wrong++
				t.Errorf("%s itself was seen with another address: %s", egressHost, line)
			}
		}
		t.Logf("%s itself: %d connections with its own address, %d with another, %d lost", egressHost, right, wrong, lost)
		if right == 0 || lost > 0 {
			t.Errorf("%d connections of %s itself were answered, and %d lost", right, egressHost, lost)
		}
	}
}
