package testbed

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// Snapshot is what a node's kernel holds, section by section, each a sorted or
// ordered list of lines. Counters, indexes and ages, which change by
// themselves, are left out, so that two snapshots of the same configuration
// are equal.
type Snapshot map[string][]string

// section is one command whose output is part of a snapshot.
type section struct {
	name    string
	command string
	// sorted is true where the order of lines means nothing.
	sorted bool
	// drop matches what changes by itself.
	drop string
	// clean, if there is one, takes out of the whole output what means nothing.
	clean func(string) string
}

func sections() []section {
	const drop = `^#.*|\[\d+:\d+\]`
	// The kernel gives each link such routes of IPv6 by itself, a moment after it came up.
	const ofLinks = `^((local|anycast|multicast|unicast) )?(fe80:|ff00:).*`
	return []section{
		{name: "links", command: "ip -oneline -details link show", sorted: true, drop: `^\d+: |@\S+|link-netnsid \d+|promiscuity \d+|allmulti \d+|(tcp_)?(hello|topology_change|gc)\S*timer\s+\S+|hello_timer\s+\S+|tcn_timer\s+\S+|qlen \d+|state \S+|<[^>]*>|hold_timer\s+\S+|message_age_timer\s+\S+|forward_delay_timer\s+\S+`},
		{name: "addresses", command: "ip -oneline -4 address show", sorted: true, drop: `^\d+: |valid_lft \S+|preferred_lft \S+`},
		{name: "addresses6", command: "ip -oneline -6 address show scope global", sorted: true, drop: `^\d+: |\btentative\b|valid_lft \S+|preferred_lft \S+`},
		{name: "rules", command: "ip rule show"},
		{name: "rules6", command: "ip -6 rule show"},
		{name: "routes", command: "ip -4 route show table all", sorted: true},
		{name: "routes6", command: "ip -6 route show table all", sorted: true, drop: ofLinks + `|expires \S+|\blinkdown\b`},
		{name: "neighbours", command: "ip -4 neighbour show nud permanent", sorted: true},
		{name: "neighbours6", command: "ip -6 neighbour show nud permanent", sorted: true},
		{name: "proxies6", command: "ip -6 neighbour show proxy", sorted: true},
		{name: "ipsets", command: "ipset save", sorted: true, drop: `timeout \d+|initval \S+`},
		{name: "iptables-nft", command: "iptables-nft-save", drop: drop, clean: func(out string) string { return withoutPodChains(withoutEmptyTables(out)) }},
		{name: "iptables-legacy", command: "iptables-legacy-save", drop: drop, clean: func(out string) string { return withoutPodChains(withoutEmptyTables(out)) }},
		{name: "ip6tables-nft", command: "ip6tables-nft-save", drop: drop, clean: func(out string) string { return withoutPodChains(withoutEmptyTables(out)) }},
		{name: "ip6tables-legacy", command: "ip6tables-legacy-save", drop: drop, clean: func(out string) string { return withoutPodChains(withoutEmptyTables(out)) }},
		{name: "nftables", command: "nft --stateless list ruleset", drop: drop, clean: func(out string) string { return withoutStaleChains(withoutIptables(out)) }},
		{name: "qdiscs", command: "tc qdisc show", sorted: true, drop: `refcnt \d+|parent \S+ |qdisc \S+ [0-9a-f]+:`},
		{name: "bpf", command: "find /sys/fs/bpf", sorted: true},
		settings("settings", "/proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv4/conf", "ip_forward", "*rp_filter", "*src_valid_mark", "*forwarding", "*arp_*", "*accept_local"),
		settings("settings6", "/proc/sys/net/ipv6/conf", "*forwarding", "*disable_ipv6", "*addr_gen_mode", "*accept_ra", "*accept_dad", "*accept_redirects", "*accept_source_route",
			"*autoconf", "*proxy_ndp", "*keep_addr_on_down", "*ndisc_notify"),
	}
}

// settings are those below some paths whose names match one of the patterns. grep reads them with a
// twentieth of the system calls of sysctl, which resolves the path of every setting of the machine.
func settings(name, paths string, patterns ...string) section {
	return section{name: name, command: "grep -rs . " + paths + " --include=" + strings.Join(patterns, " --include="), sorted: true, drop: `^/proc/sys/`}
}

// Snapshot lists the kernel objects of a node.
func (c *Cluster) Snapshot(ctx context.Context, node string) (Snapshot, error) {
	shot := Snapshot{}
	var errs []error
	for _, s := range sections() {
		out, err := c.NodeShell(ctx, node, strings.Fields(s.command)...)
		if err != nil {
			errs = append(errs, fmt.Errorf("snapshot of %s: %w", s.name, err))
			continue
		}
		shot[s.name] = s.lines(out)
	}
	filters, err := c.filters(ctx, node)
	shot["filters"] = filters
	return shot, errors.Join(append(errs, err)...)
}

// lines cleans a command's output.
func (s section) lines(out string) []string {
	if s.clean != nil {
		out = s.clean(out)
	}
	drop := regexp.MustCompile(s.drop)
	space := regexp.MustCompile(`\s+`)
	var lines []string
	for line := range strings.Lines(out) {
		if s.drop != "" {
			line = drop.ReplaceAllString(strings.TrimRight(line, "\n"), "")
		}
		if line = strings.TrimSpace(space.ReplaceAllString(line, " ")); line != "" {
			lines = append(lines, line)
		}
	}
	if s.sorted {
		slices.Sort(lines)
	}
	return lines
}

// withoutEmptyTables drops the tables of iptables-save that hold built-in
// chains alone, without rules: such a table comes into being when it is looked
// at, and does nothing.
func withoutEmptyTables(save string) string {
	var kept strings.Builder
	for table := range strings.SplitAfterSeq(save, "COMMIT\n") {
		for line := range strings.Lines(table) {
			own := strings.HasPrefix(line, ":") && !strings.Contains(line, " ACCEPT ")
			if own || strings.HasPrefix(line, "-") {
				kept.WriteString(table)
				break
			}
		}
	}
	return kept.String()
}

// withoutPodChains gives the chains that kube-router has for each pod and policy one name: it
// makes them again, with others, at each change of any pod.
func withoutPodChains(save string) string {
	return regexp.MustCompile(`KUBE-(POD-FW|NWPLCY)-[A-Z2-7]{16}`).ReplaceAllString(save, "KUBE-$1")
}

// withoutIptables drops the tables of an nftables listing that iptables-nft
// keeps its rules in: they are listed on their own.
func withoutIptables(listing string) string {
	theirs := regexp.MustCompile(`(?ms)^table ip6? (filter|nat|mangle|raw|security) \{$.*?^\}$`)
	return theirs.ReplaceAllString(listing, "")
}

// withoutStaleChains drops the chains of kube-proxy's tables that have no rules: it empties
// the chains of a Service that is gone at once, but deletes them with a later change, or in
// half a minute.
func withoutStaleChains(listing string) string {
	theirs := regexp.MustCompile(`(?ms)^table ip6? kube-proxy \{$.*?^\}$`)
	empty := regexp.MustCompile(`(?m)^\tchain \S+ \{\n\t\}\n`)
	return theirs.ReplaceAllStringFunc(listing, func(table string) string { return empty.ReplaceAllString(table, "") })
}

// filters lists the tc filters of every device, both ways.
func (c *Cluster) filters(ctx context.Context, node string) ([]string, error) {
	out, err := c.NodeShell(ctx, node, "ls", "/sys/class/net")
	if err != nil {
		return nil, err
	}
	var all []string
	var errs []error
	for device := range strings.FieldsSeq(out) {
		for _, way := range []string{"ingress", "egress"} {
			out, err := c.NodeShell(ctx, node, "tc", "filter", "show", "dev", device, way)
			errs = append(errs, err)
			for _, line := range (section{drop: `id \d+|tag \S+|jited`}).lines(out) {
				all = append(all, device+" "+way+" "+line)
			}
		}
	}
	return all, errors.Join(errs...)
}

// Diff lists what another snapshot has otherwise, a line for each difference:
// "+" is in the other alone, "-" in this one alone.
func (s Snapshot) Diff(other Snapshot) []string {
	names := map[string]bool{}
	for name := range s {
		names[name] = true
	}
	for name := range other {
		names[name] = true
	}
	var diffs []string
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if slices.Equal(s[name], other[name]) {
			continue
		}
		before := len(diffs)
		for _, line := range s[name] {
			if !slices.Contains(other[name], line) {
				diffs = append(diffs, name+": - "+line)
			}
		}
		for _, line := range other[name] {
			if !slices.Contains(s[name], line) {
				diffs = append(diffs, name+": + "+line)
			}
		}
		if len(diffs) == before {
			diffs = append(diffs, name+": the order differs")
		}
	}
	return diffs
}
