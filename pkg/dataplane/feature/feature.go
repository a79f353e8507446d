package feature

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Name is a feature, as a word for programs.
type Name string

// The features, the one that is lost last first.
const (
	// OwnTable: nftables tables of family inet that translate sources, and ranges in
	// concatenations.
	OwnTable Name = "OwnTable"
	// MapBatches: many entries of a BPF map in one call.
	MapBatches Name = "MapBatches"
	// ProgramClock: a clock for tc programs under any license.
	ProgramClock Name = "ProgramClock"
	// ConnectionFilter: lists of tracked connections that the kernel filters.
	ConnectionFilter Name = "ConnectionFilter"
	// MapMemory: memory of BPF maps that does not count as locked.
	MapMemory Name = "MapMemory"
	// TunnelSource: a program names the source of the overlay's packets.
	TunnelSource Name = "TunnelSource"
	// TCX: programs at an interface that come before all tc filters.
	TCX Name = "TCX"
	// TableOwner: tables that only their owner can change, and that outlive it.
	TableOwner Name = "TableOwner"
)

// Feature is one feature of the kernel.
type Feature struct {
	Name Name
	// Since is the first version of Linux with it; distributions bring some to older ones.
	Since Version
	// Use says what it is used for, and Without what is lost where it is missing.
	Use, Without string
	// ByVersion: whether a kernel has it cannot be tried, so that its version decides.
	ByVersion bool
}

// String returns what is lost, in one line.
func (f Feature) String() string { return fmt.Sprintf("%s (Linux %v): %s", f.Name, f.Since, f.Without) }

// All returns the features, the oldest first.
func All() []Feature {
	return []Feature{
		{
			Name: OwnTable, Since: Version{5, 6},
			Use: "all rules are in an nftables table of our own",
			Without: "rules are in iptables, where other software's rules may come before ours; " +
				"the guard drops what these give another source",
		},
		{
			Name: MapBatches, Since: Version{5, 6},
			Use:     "the agent compares its BPF maps with the plan",
			Without: "a pass takes one system call for each remote pod of the node",
		},
		{
			Name: ProgramClock, Since: Version{5, 8},
			Use:     "the kernel's answers to probes cease to be good some time after the agent has ended",
			Without: "the kernel answers probes as the agent last said, also long after that has ended",
		},
		{
			Name: ConnectionFilter, Since: Version{5, 8}, ByVersion: true,
			Use:     "connections of a few pods are found",
			Without: "to find them, the agent reads all tracked connections of the node",
		},
		{
			Name: MapMemory, Since: Version{5, 11}, ByVersion: true,
			Use:     "BPF maps are made with the agent's three capabilities",
			Without: "the agent also needs the capability SYS_RESOURCE (agent.capabilities of the chart)",
		},
		{
			Name: TunnelSource, Since: Version{6, 0},
			Use:     "the overlay's packets leave with the node's InternalIP",
			Without: "they leave with the source of the route; where that is another address, it is an error",
		},
		{
			Name: TCX, Since: Version{6, 6},
			Use: "the guard is the first program at the uplink",
			Without: "the guard is a tc filter: it does not see what a filter with a lower preference accepts, " +
				"and has no place where the interface has an ingress qdisc",
		},
		{
			Name: TableOwner, Since: Version{6, 9},
			Use:     "nobody else can change or flush our table",
			Without: "other software can flush or change our rules; the next pass repairs them",
		},
	}
}

// Kernel is what a kernel was found to have.
type Kernel struct {
	// Release is its own name for itself, such as 6.1.0-56-amd64.
	Release string
	// Lacks are the features that were tried in vain.
	Lacks []Name
}

// Missing returns what a kernel does without, the oldest first. Of a kernel whose release
// does not begin with a version, nothing is known by version.
func Missing(k Kernel) (missing []Feature) {
	version, known := parseVersion(k.Release)
	for _, f := range All() {
		if slices.Contains(k.Lacks, f.Name) || f.ByVersion && known && version.before(f.Since) {
			missing = append(missing, f)
		}
	}
	return missing
}

// Version is a version of Linux.
type Version struct{ Major, Minor int }

// String returns the version as people write it.
func (v Version) String() string { return fmt.Sprintf("%d.%d", v.Major, v.Minor) }

func (v Version) before(o Version) bool {
	return v.Major < o.Major || v.Major == o.Major && v.Minor < o.Minor
}

// parseVersion reads the version at the begin of a release.
func parseVersion(release string) (v Version, ok bool) {
	major, rest, _ := strings.Cut(release, ".")
	end := strings.IndexFunc(rest, func(r rune) bool { return r < '0' || r > '9' })
	if end >= 0 {
		rest = rest[:end]
	}
	var errMajor, errMinor error
	v.Major, errMajor = strconv.Atoi(major)
	v.Minor, errMinor = strconv.Atoi(rest)
	return v, errMajor == nil && errMinor == nil
}
