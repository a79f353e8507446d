package e2e

import (
	"os"
	"strconv"
	"testing"

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
	b.install(t)
	probers := b.probers(t)
	run := map[string]func(*testing.T){
		"story": b.testStory, "packets": b.testPackets, "inside": b.testInside, "inbound": b.testInbound,
		"restart": b.testAgentRestart, "drift": b.testDrift, "beside": probers.verify, "removal": b.testRemoval,
		// Installed again: after a power cut a node cannot be compared.
		"failover": func(t *testing.T) { t.Helper(); b.install(t); b.testPowerCut(t) },
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
	b := newBedOf(t, testbed.Options{Prefix: prefix, Backend: cell.Node, CNI: cell.CNI, ProxyMode: cell.Proxy, DualStack: cell.IPv6})
	b.rules, b.kustomized = cell.Rules, false
	if cell.IPv6 {
		b.family = ipv6()
	}
	if cell.Rules != "nftables" {
		b.values = append(b.values, "backend="+cell.Rules)
	}
	return b
}
