package main

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/egressip-operator/egressip-operator/test/bench/figures"
)

const head = `# Benchmarks

<!-- Written by "make bench" from what it measured. Do not edit. -->

What connections of pods cost on their way out of the cluster, with egress IPs and without. All of it
was measured in one run each, in network namespaces of one machine: two nodes, a pod, and a server
outside. The ways take turns, so that what else the machine does meets them all; a ratio is that of
one turn to the other in the same round, given as the median of all rounds, with the quartiles. More
is better: 1.00 means as good as what it is compared with.

The absolute figures say little about other machines: here the sender, both nodes and the server share
the same processors, and no packet leaves the machine. What a node does is a larger part of the whole
than it is elsewhere. The dataplane is in the kernel as an agent leaves it, and no agent runs beside it.
`

const tail = `## Where the difference comes from

On a node, a packet that is forwarded passes six hooks in which our table has rules, and one with a remote
egress IP passes two nodes. Each rule takes time, for a small packet as much as for a TCP segment of 64 KiB.
Sampled with perf while a pod sent small packets with a local egress IP, a quarter of all the time was
evaluation of our rules; policy routes took another thirtieth, and the program at the uplink a hundredth.
Connection tracking and NAT take their time on the ways without us, too. Some checks are made twice or three
times on purpose: other software may change marks, or flush rules, between them.

Tried: rules that only some packets need stand in chains of their own, replies and settled connections leave
early, and what is cheap to ask comes first. What we add to a packet with an egress IP became 27 % less, to
one without 8 to 11 % (go run ./test/bench/packets, before and after in turn, 2026-11-28).

Not tried: flowtables, which the kernel of this machine lacks; an overlay without encapsulation where hosts
share a segment; a fast path in tc programs.
`

// page writes the report.
func page(ways, growth figures.Report) []byte {
	var b bytes.Buffer
	b.WriteString(head)
	fmt.Fprintf(&b, "\n## Ways out\n\n%s\n", origin(ways))
	b.WriteString(`- **local, plain**: the pod's node masquerades what the pod sends. So does a cluster without us.
- **local, nftables** and **local, iptables**: the pod's node has the egress IP; rules in a table of our
  own, and among those of iptables (iptables-nft).
- **remote, bare**: a VXLAN device leads to another node, which has one rule of SNAT. It is the least that
  can be done about an egress IP of another node, and nothing guards it.
- **remote, nftables** and **remote, iptables**: our overlay leads to another node, which has the egress IP.

![For each measurement, bars from 0 to the ratio of each way with an egress IP to the way without; the tables have the same figures](images/benchmarks-ways.svg)

`)
	for _, s := range ways.Series {
		table(&b, s, "way")
	}
	fmt.Fprintf(&b, "\n## More and more pods\n\n%s\n", origin(growth))
	b.WriteString(`One pod sends from a node with a local egress IP. Its node has 1 to 10,000 pods with egress IPs, as far
as its kernel knows: the others are addresses without a pod. Up to 512 pods have an egress IP each; beyond
that they share 512, the most that a node may have.

![For each measurement, bars from 0 to the ratio with 10 to 10,000 pods to that with one; the tables have the same figures](images/benchmarks-growth.svg)

`)
	for _, s := range growth.Series {
		table(&b, s, "rules, pods")
	}
	b.WriteString(tail)
	return b.Bytes()
}

// origin says where figures come from.
func origin(r figures.Report) string {
	m := r.Machine
	return fmt.Sprintf("Measured on %s: Linux %s, %d processors (%s), %d MiB of memory, load average %s before the run.\n",
		r.Began.Format("2006-01-02"), m.Kernel, m.Processors, m.Processor, m.MemoryMiB, m.Load)
}

// table writes the figures of a measurement.
func table(b *bytes.Buffer, s figures.Series, ways string) {
	better := ""
	if s.LessIsBetter {
		better = ", less is better"
	}
	fmt.Fprintf(b, "### %s\n\n", strings.ToUpper(s.Name[:1])+s.Name[1:])
	if len(s.Ratios) == 0 {
		fmt.Fprintf(b, "| %s | %s%s |\n|---|---|\n", ways, s.Unit, better)
		for _, way := range ordered(s) {
			fmt.Fprintf(b, "| %s | %s |\n", way, number(figures.Quantile(s.Values[way], 0.5)))
		}
		b.WriteString("\n")
		return
	}
	fmt.Fprintf(b, "| %s | %s%s | ratio | quartiles |\n|---|---|---|---|\n", ways, s.Unit, better)
	for _, way := range ordered(s) {
		ratio, spread := "", ""
		if i := slices.IndexFunc(s.Ratios, func(r figures.Ratio) bool { return r.Way == way }); i >= 0 {
			r := s.Ratios[i]
			ratio, spread = fmt.Sprintf("%.2f of %s", r.Median, r.Beside), fmt.Sprintf("%.2f to %.2f", r.Low, r.High)
		}
		fmt.Fprintf(b, "| %s | %s | %s | %s |\n", way, number(figures.Quantile(s.Values[way], 0.5)), ratio, spread)
	}
	b.WriteString("\n")
}

// ordered returns the ways of a series: each that is compared with after those that are compared
// with nothing, in the order of the ratios.
func ordered(s figures.Series) []string {
	var order []string
	for _, r := range s.Ratios {
		if !slices.Contains(order, r.Beside) {
			order = append(order, r.Beside)
		}
		order = append(order, r.Way)
	}
	for _, way := range s.Ways() {
		if !slices.Contains(order, way) {
			order = append(order, way)
		}
	}
	return order
}

// number writes a value with three or four digits that matter.
func number(v float64) string {
	switch {
	case v >= 1000:
		return fmt.Sprintf("%.0f", v)
	case v >= 100:
		return fmt.Sprintf("%.1f", v)
	default:
		return fmt.Sprintf("%.2f", v)
	}
}
