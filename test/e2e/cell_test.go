package e2e

import (
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/test/matrix"
	"github.com/egressip-operator/egressip-operator/test/testbed"
)

// TestCell plays a short suite on one combination of CNI, kube-proxy and backends: "make
// matrix" names it, and runs all of them.
func TestCell(t *testing.T) {
	name := os.Getenv(matrix.Variable)
	if name == "" {
		t.Skipf("%s names no cell: see \"make matrix\"", matrix.Variable)
	}
	cell, err := matrix.Find(name)
	if err != nil {
		t.Fatal(err)
	}
	b := newCell(t, "cell", cell)
	b.before = b.snapshots(t)
	t.Log("snapshots of all nodes were taken")
	b.install(t)
	t.Log("the operator is installed")
	probers := b.probers(t)
	t.Log("probers send")
	run := map[string]func(*testing.T){
		"story": b.testStory, "packets": b.testPackets, "inside": b.testInside, "inbound": b.testInbound,
		"restart": b.testAgentRestart, "drift": b.testDrift, "beside": probers.verify, "removal": b.testRemoval,
		// Installed again: after a power cut a node cannot be compared.
		"failover": func(t *testing.T) { t.Helper(); b.install(t); b.testPowerCut(t) },
	}
	if len(b.Nodes()) < 3 {
		run["failover"] = func(t *testing.T) { t.Helper(); t.Skip("needs a pod on a third node") }
	}
	// All of them, even after one that failed: each is a question of its own.
	for _, s := range matrix.Steps() {
		t.Run(s.Name, run[s.Key])
	}
}

// TestPacketsAgain plays "every kind of packet" as often as EGRESSIP_PLAYS says on one
// cell: for what happens once in many plays.
func TestPacketsAgain(t *testing.T) {
	plays, err := strconv.Atoi(os.Getenv("EGRESSIP_PLAYS"))
	if err != nil {
		t.Skip("EGRESSIP_PLAYS is no number")
	}
	cell, err := matrix.Find(os.Getenv(matrix.Variable))
	if err != nil {
		t.Fatal(err)
	}
	b := newCell(t, "again", cell)
	b.install(t)
	for range plays {
		t.Run("every kind of packet", b.testPackets)
	}
}

// newCell brings up the test bed of a cell, without the operator.
func newCell(t *testing.T, prefix string, cell matrix.Cell) *bed {
	t.Helper()
	options := testbed.Options{Prefix: prefix, Backend: cell.Node, CNI: cell.CNI, ProxyMode: cell.Proxy, DualStack: cell.IPv6}
	if text := os.Getenv(matrix.Nodes); text != "" {
		var err error
		if options.Nodes, err = strconv.Atoi(text); err != nil || options.Nodes < 2 {
			t.Fatalf("%s=%s: want 2 or more", matrix.Nodes, text)
		}
	}
	b := newBedOf(t, options)
	b.rules, b.kustomized = cell.Rules, false
	if cell.IPv6 {
		b.family = ipv6()
	}
	if cell.Rules != "nftables" {
		b.values = append(b.values, "backend="+cell.Rules)
	}
	b.values = append(b.values, slower()...)
	return b
}

// slower are values of the chart with which a slow machine is not taken for one that is silent.
func slower() (values []string) {
	for name, usual := range map[string]time.Duration{
		"agent.probeInterval": 200 * time.Millisecond, "controller.probeInterval": 200 * time.Millisecond, "agent.withdrawAfter": time.Second,
		"agent.resyncPeriod": time.Second,
	} {
		if span := testenv.Stretch(usual); span != usual {
			values = append(values, name+"="+span.String())
		}
	}
	return values
}
