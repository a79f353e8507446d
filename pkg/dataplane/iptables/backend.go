package iptables

import (
	"errors"
	"fmt"
	"slices"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/rules"
)

// Backend is one of the two implementations of iptables in the kernel.
type Backend string

// The backends.
const (
	NFT    Backend = "nft"
	Legacy Backend = "legacy"
)

// Family is a protocol family, each of which has its own tables and commands.
type Family int

// The families.
const (
	IPv4 Family = iota
	IPv6
)

// command is the name of a backend's command.
func (f Family) command(b Backend) string {
	if f == IPv6 {
		return "ip6tables-" + string(b)
	}
	return "iptables-" + string(b)
}

// Backends lists both, in the order in which they are changed.
func Backends() []Backend { return []Backend{NFT, Legacy} }

// ChooseBackends returns the backends that our rules belong in: those that hold
// the rules of other software, above all source NAT. The kernel asks both
// backends for a packet's new source and takes the first answer, so where both
// hold NAT rules of others, ours must be in both.
//
// Configured backends, if any, override what is found. Observed has an entry
// for each backend that is installed and can be read. Mixed are the backends whose NAT rules
// of others may come before ours: all in use, or those that are not configured.
func ChooseBackends(configured []Backend, observed map[Backend]Tables) (use, mixed []Backend, err error) {
	if len(configured) > 0 {
		for _, b := range configured {
			if _, installed := observed[b]; !installed {
				return nil, nil, fmt.Errorf("iptables backend %q is configured but not installed, or cannot be read", b)
			}
			if !slices.Contains(use, b) {
				use = append(use, b)
			}
		}
		for _, b := range Backends() {
			if !slices.Contains(use, b) && hasForeignNAT(observed[b]) {
				mixed = append(mixed, b)
			}
		}
		return use, mixed, nil
	}
	for _, criterion := range []func(Tables) bool{hasForeignNAT, hasForeignRules, hasOwnChains, isInstalled} {
		for _, b := range Backends() {
			if tables, ok := observed[b]; ok && criterion(tables) {
				use = append(use, b)
			}
		}
		if len(use) > 0 {
			break
		}
	}
	if len(use) == 2 && hasForeignNAT(observed[NFT]) {
		return use, use, nil
	}
	if len(use) == 0 {
		return nil, nil, errors.New("the rules of no iptables backend can be read")
	}
	// Without NAT rules of others there is nothing to come before.
	return use[:1], nil, nil
}

// ForeignNAT reports whether others have rules in table nat.
func (t Tables) ForeignNAT() bool { return t[rules.NAT].Foreign > 0 }

func hasForeignNAT(t Tables) bool { return t.ForeignNAT() }

func hasForeignRules(t Tables) bool {
	for _, table := range t {
		if table.Foreign > 0 {
			return true
		}
	}
	return false
}

func hasOwnChains(t Tables) bool {
	for _, table := range t {
		if len(table.Own) > 0 {
			return true
		}
	}
	return false
}

func isInstalled(Tables) bool { return true }
