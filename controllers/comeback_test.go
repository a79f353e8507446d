package controllers_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/controllers"
	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/internal/testenv/objects"
	"github.com/egressip-operator/egressip-operator/pkg/probe"
)

// TestHostsThatComeBackServe: both automatic hosts fall silent, again and again, and
// each time come back. Their Nodes are Ready all the time, as if a firewall dropped the
// probes, so that traffic keeps going to one of them: probes take no last way. The
// hold-down has grown to 8 seconds at last; one of the hosts
// serves before it is over, as there is no other, and the other one, which is not
// needed, waits. Nothing moves when it is over.
//
// Mutants killed: held-hosts-wait; returning-is-silent, by which a host is trusted at
// once where agents hear it before the controller does.
func TestHostsThatComeBackServe(t *testing.T) {
	if !ownNetwork(t, "192.168.7.11/32", "192.168.7.12/32", "192.168.7.13/32", "192.168.7.14/32") {
		return
	}
	a := startAPI(t)
	hosts := []*answering{{name: "node2", ip: "192.168.7.12"}, {name: "node3", ip: "192.168.7.13"}}
	// A controller that heard no other host would take itself for cut off.
	witnesses := []*answering{{name: "node1", ip: "192.168.7.11"}, {name: "node4", ip: "192.168.7.14"}}
	for i, w := range witnesses {
		w.answer(t)
		a.node(t, w.name, fmt.Sprintf("10.254.%d.0/24", i+11), w.ip)
	}
	for i, h := range hosts {
		h.answer(t)
		a.node(t, h.name, fmt.Sprintf("10.254.%d.0/24", i+2), h.ip)
	}
	a.control(t, controllers.Options{ProbePort: probe.Port, ProbeSource: netip.MustParseAddr("192.168.7.11")})
	for _, h := range hosts {
		a.ranges(t, h.name, "192.168.7.128/25")
	}
	a.vote(t, nil, "node1", "node4")
	a.namespace(t, "shop")
	a.request(t, "shop", "192.168.7.200")
	a.awaitNamespace(t, "shop", served)
	a.awaitHost(t, "node2", wantWitnesses("node1", "node3", "node4"))
	a.awaitHost(t, "node3", wantWitnesses("node1", "node2", "node4"))
	for _, h := range slices.Concat(hosts, witnesses) {
		h.awaitQuestions(t, 3)
	}

	comeBack := func() {
		t.Helper()
		a.fall(t, hosts)
		for _, h := range hosts {
			h.answer(t)
			h.awaitQuestions(t, 1)
		}
		// The agents hear them before the controller trusts its own probes.
		a.vote(t, nil, "node1", "node4")
	}
	trusted := func() {
		t.Helper()
		for _, h := range hosts {
			a.awaitHost(t, h.name, wantOnline(metav1.ConditionTrue, "NodeReady"))
		}
	}
	// Each fall within two minutes of a return doubles the hold-down.
	for range 2 {
		comeBack()
		trusted()
	}
	a.awaitNamespace(t, "shop", served)

	comeBack()
	n := a.awaitNamespace(t, "shop", served)
	server := n.Status.Active.Host
	a.awaitHost(t, server, wantOnline(metav1.ConditionTrue, "LastResort"))
	for _, h := range hosts {
		if h.name != server {
			a.awaitHost(t, h.name, wantOnline(metav1.ConditionFalse, "HeldDown"))
		}
	}
	trusted()
	a.awaitNamespace(t, "shop", wantActive("192.168.7.200", server))
}

func served(n *v1.NetNamespace) string {
	if n.Status.Active == nil {
		return fmt.Sprintf("not served: %v", n.Status.EgressIPs)
	}
	return ""
}

func wantOnline(status metav1.ConditionStatus, reason string) func(*v1.HostSubnet) string {
	return func(h *v1.HostSubnet) string {
		return wantCondition(h.Status.Conditions, v1.ConditionOnline, status, reason, "")
	}
}

// fall has the hosts fall silent, and waits until that is reported.
func (a *api) fall(t *testing.T, hosts []*answering) {
	t.Helper()
	var names []string
	for _, h := range hosts {
		h.fall(t)
		names = append(names, h.name)
	}
	for _, h := range hosts {
		h.awaitUnanswered(t, 5)
	}
	// To the controller both are silent now, so that the votes decide on both at once.
	a.vote(t, names, "node1", "node4")
	for _, name := range names {
		a.awaitHost(t, name, wantOnline(metav1.ConditionUnknown, "Silent"))
	}
	a.awaitNamespace(t, "shop", func(n *v1.NetNamespace) string {
		if n.Status.Active == nil {
			return "probes took its last way: it is dropped"
		}
		return wantCondition(n.Status.Conditions, v1.ConditionEgressReady, metav1.ConditionUnknown, "HostSilent", "")
	})
}

// vote reports in place of these witnesses' agents that hosts are silent to them.
func (a *api) vote(t *testing.T, silent []string, witnesses ...string) {
	t.Helper()
	for _, name := range witnesses {
		h := a.awaitHost(t, name, func(*v1.HostSubnet) string { return "" })
		before := h.DeepCopy()
		h.Status.Agent = &v1.AgentStatus{Version: objects.AgentVersion, UplinkCIDR: h.HostIP + "/32", Silent: slices.Clone(silent)}
		if err := a.Status().Patch(t.Context(), h, client.MergeFrom(before)); err != nil {
			t.Fatal(err)
		}
	}
}

// answering is a host whose agent answers probes, or is as dead.
type answering struct {
	name, ip  string
	responder *probe.Responder
	mute      *net.UDPConn // while it is as dead
	end       func()
}

// awaitQuestions waits until the controller has heard the host as often: before that,
// its silence means nothing.
func (h *answering) awaitQuestions(t *testing.T, times uint64) {
	t.Helper()
	testenv.Eventually(t, func(context.Context) string {
		if n := h.responder.Stats().Answered; n < times {
			return fmt.Sprintf("%s was asked %d times", h.name, n)
		}
		return ""
	})
}

// answer begins to answer probes.
func (h *answering) answer(t *testing.T) {
	t.Helper()
	h.stop()
	responder, err := probe.NewResponder(probe.ResponderConfig{Host: h.name, Addr: netip.MustParseAddr(h.ip), SourceRate: 1000})
	if err != nil {
		t.Fatal(err)
	}
	h.responder = responder
	responder.SetSources([]netip.Addr{netip.MustParseAddr("192.168.7.11")})
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- responder.Run(ctx) }()
	h.end = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("%s: %v", h.name, err)
		}
	})
	t.Cleanup(h.end)
}

// fall takes probes and says nothing, and neither does its kernel: a closed port
// would be refused.
func (h *answering) fall(t *testing.T) {
	t.Helper()
	h.stop()
	conn, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(h.ip), probe.Port)))
	if err != nil {
		t.Fatal(err)
	}
	h.mute, h.end = conn, sync.OnceFunc(func() { _ = conn.Close() })
	t.Cleanup(h.end)
}

// awaitUnanswered waits until the host has been asked as often in vain.
func (h *answering) awaitUnanswered(t *testing.T, times int) {
	t.Helper()
	if err := h.mute.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	for range times {
		if _, _, err := h.mute.ReadFromUDP(make([]byte, probe.Size)); err != nil {
			t.Fatalf("%s is not probed: %v", h.name, err)
		}
	}
}

func (h *answering) stop() {
	if h.end != nil {
		h.end()
	}
}

// ownNetwork runs the test again, in a process that has a network of its own with
// the addresses, and returns true there. The network goes with the process, and so
// does every process that it started.
func ownNetwork(t *testing.T, addresses ...string) bool {
	t.Helper()
	const inside = "EGRESSIP_TEST_OWN_NETWORK"
	if os.Getenv(inside) == "" {
		cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.timeout=5m")
		cmd.Env = append(os.Environ(), inside+"=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWPID}
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("in a network of its own: %v\n%s", err, out)
		}
		return false
	}
	commands := [][]string{
		{"link", "set", "lo", "up"},
		{"link", "add", "uplink", "type", "veth", "peer", "name", "other"},
		{"link", "set", "uplink", "up"},
		{"link", "set", "other", "up"},
	}
	for _, address := range addresses {
		commands = append(commands, []string{"addr", "add", address, "dev", "uplink"})
	}
	// The API server does not begin without one.
	commands = append(commands, []string{"route", "add", "default", "dev", "uplink"})
	var errs []error
	for _, arguments := range commands {
		if out, err := exec.CommandContext(t.Context(), "ip", arguments...).CombinedOutput(); err != nil {
			errs = append(errs, fmt.Errorf("ip %v: %w: %s", arguments, err, out))
		}
	}
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	return true
}
