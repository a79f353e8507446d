package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/egressip-operator/egressip-operator/test/matrix"
)

// kernel is one of Debian's kernels.
type kernel struct {
	name string
	// pattern is that of its package, release the release of Debian that has it.
	pattern, release string
}

func kernels() []kernel {
	return []kernel{
		{"5.10", `^linux-image-5\.10\.0-[0-9]+-amd64$`, "bullseye"},
		{"6.1", `^linux-image-6\.1\.0-[0-9]+-amd64$`, "bookworm"},
		{"6.12", `^linux-image-6\.12\.[0-9]+\+deb12-amd64$`, "bookworm"},
	}
}

// variant is a kernel without some of its modules.
type variant struct {
	name   string
	refuse []string
}

func variants() []variant {
	return []variant{
		{name: "whole"},
		{name: "without nf_tables", refuse: []string{"nf_tables", "nf_tables_set", "nft_compat"}},
	}
}

// suite is what runs in a kernel: the tests of a package, or some of them.
type suite struct {
	name, pkg string
	// tests and skip are patterns of names, as for -test.run and -test.skip.
	tests, skip string
	// matrix is the EGRESSIP_TEST_MATRIX of pkg/dataplane.
	matrix string
	// cell is the one of test/matrix that is played.
	cell string
	// checks is how many cases a property is checked with, where the package has some.
	checks int
	limit  time.Duration
	// memory is what the guest needs for it, in MiB, if that is more than usual.
	memory int
	// variants are the names of the variants in which it runs.
	variants []string
}

// destinations are the packet tests about networks that pods reach without their egress IPs.
const destinations = `^Test(ExcludedNetworks.*|ConnectionsToExcludedNetworksEnd|NoPacketLeaksWhileNetworksAreExcluded|AllElseWorksWithoutExcludedNetworks)$`

// vlans are the packet tests of a second network that is a VLAN's. Not every machine that these are
// developed on has VLANs.
const vlans = `^Test(EgressIPOfAVLAN|VLANInTrouble|GuardSeesTagsOfVLANs)$`

// withoutTable are the packet tests that run without nf_tables.
const withoutTable = `^Test(BackendIsWhatTheKernelCan|PodsLeaveWithTheirEgressIP|InsideTheClusterNothingChanges|RestartChangesNothing|` +
	`CleanupLeavesNothingOfOursAndAllElse|EgressIPMovesUnderTraffic|StrictEndsWithoutAnAgent|StrictHoldsWhatIsNotKnownYet|` +
	`ConnectionsThroughADeadHostAreReset|NoEgressByIPv6)$`

// suites are the same for all kernels. The packet tests are a choice: all of them take
// hours in an emulated machine.
func suites() []suite {
	whole, both := []string{"whole"}, []string{"whole", "without nf_tables"}
	list := []suite{
		{name: "programs", pkg: "pkg/dataplane/bpf", limit: 15 * time.Minute, variants: whole},
	}
	for _, driver := range []string{"address", "neigh", "overlay", "routing", "nftables", "ipset", "iptables", "conntrack", "podlink", "sysctl"} {
		s := suite{name: "driver " + driver, pkg: "pkg/dataplane/" + driver, limit: 10 * time.Minute, variants: both}
		switch driver {
		case "nftables":
			s.variants, s.checks = whole, 20
		case "iptables":
			s.variants = whole
		}
		list = append(list, s)
	}
	return append(list,
		suite{name: "conformance", pkg: "test/conformance/kernel", limit: 25 * time.Minute, variants: whole},
		suite{name: "packets", pkg: "pkg/dataplane", tests: packets, matrix: "few", limit: 60 * time.Minute, variants: whole},
		// Not every machine that these are developed on has ipsets of pairs.
		suite{name: "destinations", pkg: "pkg/dataplane", tests: destinations, matrix: "few", limit: 30 * time.Minute, variants: both},
		suite{name: "vlans", pkg: "pkg/dataplane", tests: vlans, matrix: "few", limit: 40 * time.Minute, variants: whole},
		suite{name: "ipvs", pkg: "pkg/dataplane", tests: "^TestServicesByIPVS$", matrix: "few", limit: 10 * time.Minute, variants: whole},
		suite{name: "uplinks", pkg: "pkg/dataplane", tests: "^Test(KindsOfUplinks|UplinkBecomesAnotherDevice)$", matrix: "all", limit: 60 * time.Minute, variants: whole},
		suite{name: "packets without nf_tables", pkg: "pkg/dataplane", tests: withoutTable, matrix: "legacy", limit: 60 * time.Minute, variants: both[1:]},
		suite{name: "story", pkg: clusters, tests: story(), cell: "bridge+iptables", limit: 90 * time.Minute, memory: 4096, variants: whole},
		suite{name: "story ipvs", pkg: clusters, tests: story(), cell: "bridge+ipvs", limit: 90 * time.Minute, memory: 4096, variants: whole},
	)
}

// clusters is the package of tests that bring up a cluster: they run only where they are named, since
// they need a machine that does nothing else, and "make image" before.
const clusters = "test/e2e"

// story is the pattern of the steps of a cell that run on two nodes: all of them take hours here.
func story() string {
	var names []string
	for _, s := range matrix.Steps() {
		if slices.Contains([]string{"story", "beside", "removal"}, s.Key) {
			names = append(names, strings.ReplaceAll(s.Name, " ", "_"))
		}
	}
	return "^TestCell$/^(" + strings.Join(names, "|") + ")$"
}

// packets are the packet tests that run.
const packets = `^Test(PodsLeaveWithTheirEgressIP|InsideTheClusterNothingChanges|RestartChangesNothing|CleanupLeavesNothingOfOursAndAllElse|` +
	`GuardHoldsBesideTCOfOthers|GuardIsPutBack|ProbesTravelTheOverlay|StrictHoldsWhatIsNotKnownYet|TableOutlivesItsOwner|` +
	`NoPodSendsWithTheAddressOfOneWithAnEgressIP|NoEgressByIPv6|SourcePorts|ConnectionsThroughADeadHostAreReset|ForwardPolicyDrop|` +
	`EgressIPMovesUnderTraffic|ReportSaysWhatTheKernelLacks|BackendIsWhatTheKernelCan|RightsOfTheChartAreEnough)$`

// choose returns those of a list whose names are asked for; all where none are.
func choose[T any](list []T, name func(T) string, asked string) ([]T, error) {
	if asked == "" {
		return list, nil
	}
	var chosen []T
	for one := range strings.SplitSeq(asked, ",") {
		before := len(chosen)
		for _, t := range list {
			if name(t) == one || strings.HasSuffix(one, "*") && strings.HasPrefix(name(t), strings.TrimSuffix(one, "*")) {
				chosen = append(chosen, t)
			}
		}
		if len(chosen) == before {
			names := make([]string, 0, len(list))
			for _, t := range list {
				names = append(names, name(t))
			}
			return nil, fmt.Errorf("%q is none of %q", one, names)
		}
	}
	return chosen, nil
}

func (s suite) in(v variant) bool { return slices.Contains(s.variants, v.name) }

// file is a name for files of a suite.
func (s suite) file() string {
	return strings.NewReplacer(" ", "-", "/", "-").Replace(s.name)
}
