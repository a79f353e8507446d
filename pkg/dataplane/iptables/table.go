package iptables

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/rules"
)

// Tables are the tables of one backend. Each stage of the rules is the table of
// the same name.
type Tables map[rules.Stage]Table

// Table is what one table holds. Rules are as iptables-save prints them, without
// the leading "-A CHAIN ".
type Table struct {
	// Own has our chains, by name.
	Own map[string][]string
	// Base has the base chains, by name, with the rules of all software.
	Base map[string][]string
	// Foreign counts the rules of other software, in all chains.
	Foreign int
	// Drop has the base chains whose policy is to drop.
	Drop map[string]bool
	// Accepting has, in table filter, rules of others, of all chains, that accept packets
	// by their source, interface or destination port; not more than maxAccepting.
	Accepting []string
}

// maxAccepting bounds what is kept of the rules of others.
const maxAccepting = 1000

// Closed reports whether a base chain drops or rejects what none of its rules accepts.
func (t Table) Closed(base string) bool {
	specs := t.Base[base]
	return t.Drop[base] || slices.ContainsFunc(specs, isFinal)
}

// Arrivals are packets that come in: UDP packets to a port, from hosts, by an interface.
type Arrivals struct {
	Port   uint16
	Hosts  []netip.Addr
	Uplink string
}

// Opens reports whether a rule of others accepts packets of that kind, or seems to: it may
// ask for more than is looked at here.
func (t Table) Opens(a Arrivals) bool {
	return len(t.Accepting) >= maxAccepting || slices.ContainsFunc(t.Accepting, func(spec string) bool { return opens(spec, a) })
}

func opens(spec string, a Arrivals) bool {
	fields := strings.Fields(spec)
	protocol, ports := "udp", ""
	narrowed := false
	for i, f := range fields[:max(len(fields)-1, 0)] {
		value, negated := fields[i+1], i > 0 && fields[i-1] == "!"
		switch f {
		case "-p":
			protocol = value
		case "--dport", "--dports":
			ports = value
		case "-s":
			if !negated && !containsAny(value, a.Hosts) {
				return false
			}
		case "-i":
			if !negated && !isInterface(value, a.Uplink) {
				return false
			}
		case "-o":
			return false // forwarded packets
		case "-d", "--sport", "--sports":
			narrowed = true
		}
	}
	if protocol != "udp" {
		return false
	}
	if ports == "" {
		return !narrowed
	}
	return containsPort(ports, int(a.Port))
}

// containsAny reports whether a network has one of the addresses.
func containsAny(network string, addresses []netip.Addr) bool {
	p, err := netip.ParsePrefix(network)
	return err == nil && slices.ContainsFunc(addresses, p.Contains)
}

// isInterface reports whether a name is that of an interface, or begins it and ends in a plus.
func isInterface(name, device string) bool {
	start, wild := strings.CutSuffix(name, "+")
	return name == device || wild && strings.HasPrefix(device, start)
}

// containsPort reports whether a list of ports and ranges has a port.
func containsPort(ports string, port int) bool {
	for part := range strings.SplitSeq(ports, ",") {
		from, to, isRange := strings.Cut(part, ":")
		if !isRange {
			to = from
		}
		low, err1 := strconv.Atoi(from)
		high, err2 := strconv.Atoi(to)
		if err1 == nil && err2 == nil && low <= port && port <= high {
			return true
		}
	}
	return false
}

// isOwnChain reports whether a chain is ours, by its name.
func isOwnChain(name string) bool { return strings.HasPrefix(name, rules.ChainPrefix) }

// leadsToOwnChain reports whether a rule jumps to a chain of ours. Such rules are
// ours, wherever they are.
func leadsToOwnChain(spec string) bool { return isOwnChain(target(spec)) }

// target returns the target of a rule, such as DROP or the name of a chain.
func target(spec string) string {
	fields := strings.Fields(spec)
	for i, f := range fields {
		if (f == "-j" || f == "-g") && i+1 < len(fields) {
			return fields[i+1]
		}
	}
	return ""
}

// parseSave reads the output of iptables-save. Tables that the kernel does not
// have are absent.
func parseSave(out string) Tables {
	tables := Tables{}
	var name rules.Stage
	var current Table
	for line := range strings.Lines(out) {
		line = strings.TrimSuffix(line, "\n")
		switch {
		case strings.HasPrefix(line, "*"):
			name = rules.Stage(line[1:])
			current = Table{Own: map[string][]string{}, Base: map[string][]string{}}
		case strings.HasPrefix(line, ":"):
			current.addChain(line[1:])
		case strings.HasPrefix(line, "-A "):
			current.addRule(line[len("-A "):])
		case line == "COMMIT":
			if name != rules.Filter {
				current.Accepting = nil
			}
			tables[name] = current
		}
	}
	return tables
}

// addChain reads the declaration of a chain: its name and its policy, which only
// base chains have.
func (t *Table) addChain(declaration string) {
	chain, policy, _ := strings.Cut(declaration, " ")
	switch {
	case isOwnChain(chain):
		t.Own[chain] = nil
	case !strings.HasPrefix(policy, "-"):
		t.Base[chain] = nil
		if strings.HasPrefix(policy, "DROP") {
			if t.Drop == nil {
				t.Drop = map[string]bool{}
			}
			t.Drop[chain] = true
		}
	}
}

// addRule reads a rule that follows the name of its chain.
func (t *Table) addRule(rule string) {
	chain, spec, _ := strings.Cut(rule, " ")
	spec = strings.TrimRight(spec, " ")
	if isOwnChain(chain) {
		t.Own[chain] = append(t.Own[chain], spec)
		return
	}
	if _, base := t.Base[chain]; base {
		t.Base[chain] = append(t.Base[chain], spec)
	}
	if !leadsToOwnChain(spec) {
		t.Foreign++
		t.noteAccepting(spec)
	}
}

// noteAccepting keeps a rule that may accept packets of the overlay.
func (t *Table) noteAccepting(spec string) {
	if len(t.Accepting) >= maxAccepting || target(spec) != "ACCEPT" || strings.Contains(spec, "--ctstate") || strings.Contains(spec, "--mark") {
		return
	}
	if strings.Contains(spec, "--dport") || strings.Contains(spec, "-s ") || strings.Contains(spec, "-i ") {
		t.Accepting = append(t.Accepting, spec)
	}
}

// parseList reads the output of iptables --list-rules, which declares chains
// differently from iptables-save.
func parseList(name rules.Stage, out string) Table {
	var save strings.Builder
	fmt.Fprintf(&save, "*%s\n", name)
	for line := range strings.Lines(out) {
		if chain, ok := strings.CutPrefix(line, "-P "); ok {
			line = ":" + chain
		} else if chain, ok := strings.CutPrefix(line, "-N "); ok {
			line = ":" + strings.TrimSpace(chain) + " -\n"
		}
		save.WriteString(line)
	}
	save.WriteString("COMMIT\n")
	return parseSave(save.String())[name]
}

// ListOwn describes what is ours in the tables of a backend and family, one object a
// line, in the order of removal.
func ListOwn(b Backend, f Family, tables Tables) []string {
	var list []string
	for _, name := range slices.Backward(rules.Stages()) {
		table := tables[name]
		for _, base := range slices.Sorted(maps.Keys(table.Base)) {
			for _, spec := range table.Base[base] {
				if leadsToOwnChain(spec) {
					list = append(list, fmt.Sprintf("%s, table %s, rule: -A %s %s", f.command(b), name, base, spec))
				}
			}
		}
		for _, chain := range slices.Sorted(maps.Keys(table.Own)) {
			list = append(list, fmt.Sprintf("%s, table %s, chain %s with %d rules", f.command(b), name, chain, len(table.Own[chain])))
		}
	}
	return list
}
