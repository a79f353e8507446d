package dataplane

import (
	"fmt"
	"slices"
)

// chooseBackends tells which iptables backends our rules belong in: those that
// hold the rules of others, above all source rewriting. The kernel asks both
// backends for a packet's new source and takes the first answer, so that
// where both hold NAT rules of others ours must be in both.
//
// configured, if any, overrides what is found. Saved has an entry for each
// backend that is installed.
func chooseBackends(configured []Backend, saved map[Backend]map[table]savedTable) (use []Backend, warnings []string, err error) {
	if len(configured) > 0 {
		for _, b := range configured {
			if _, installed := saved[b]; !installed {
				return nil, nil, fmt.Errorf("iptables backend %q is configured but not installed", b)
			}
			if !slices.Contains(use, b) {
				use = append(use, b)
			}
		}
		for b := range saved {
			if !slices.Contains(use, b) && saved[b][natTable].foreign > 0 {
				warnings = append(warnings, fmt.Sprintf(
					"iptables-%s holds NAT rules but is not among the configured backends: a MASQUERADE there may come before our source rewriting", b))
			}
		}
		return use, warnings, nil
	}
	for _, holds := range []func(map[table]savedTable) bool{foreignNAT, foreignRules, ownRules, installed} {
		for _, b := range []Backend{NFT, Legacy} {
			if tables, ok := saved[b]; ok && holds(tables) {
				use = append(use, b)
			}
		}
		if len(use) > 0 {
			break
		}
	}
	if len(use) == 2 && foreignNAT(saved[NFT]) {
		return use, []string{"both iptables backends, nft and legacy, hold NAT rules: ours are in both; let all software on the host use one"}, nil
	}
	// Without NAT rules of others there is nothing to come before.
	return use[:1], nil, nil
}

func foreignNAT(t map[table]savedTable) bool { return t[natTable].foreign > 0 }

func foreignRules(t map[table]savedTable) bool {
	for _, s := range t {
		if s.foreign > 0 {
			return true
		}
	}
	return false
}

func ownRules(t map[table]savedTable) bool {
	for _, s := range t {
		if len(s.own) > 0 {
			return true
		}
	}
	return false
}

func installed(map[table]savedTable) bool { return true }
