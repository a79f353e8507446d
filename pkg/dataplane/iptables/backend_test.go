package iptables

import (
	"slices"
	"testing"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/rules"
)

func TestBackendsFollowTheRulesOfOthers(t *testing.T) {
	none := Tables{}
	nat := Tables{rules.NAT: {Foreign: 3}}
	filter := Tables{rules.Filter: {Foreign: 1}}
	ours := Tables{rules.NAT: {Own: map[string][]string{rules.ChainPostrouting: nil}}}
	type found = map[Backend]Tables
	for _, c := range []struct {
		name       string
		configured []Backend
		observed   found
		want       []Backend
		warned     bool
	}{
		{"a host without rules", nil, found{NFT: none, Legacy: none}, []Backend{NFT}, false},
		{"legacy alone is installed", nil, found{Legacy: none}, []Backend{Legacy}, false},
		{"kube-proxy in nft", nil, found{NFT: nat, Legacy: none}, []Backend{NFT}, false},
		{"kube-proxy in legacy", nil, found{NFT: none, Legacy: nat}, []Backend{Legacy}, false},
		{"a firewall in nft, kube-proxy in legacy", nil, found{NFT: filter, Legacy: nat}, []Backend{Legacy}, false},
		{"NAT in both", nil, found{NFT: nat, Legacy: nat}, []Backend{NFT, Legacy}, true},
		{"no NAT, a firewall in legacy", nil, found{NFT: none, Legacy: filter}, []Backend{Legacy}, false},
		{"firewalls in both", nil, found{NFT: filter, Legacy: filter}, []Backend{NFT}, false},
		{"before kube-proxy starts, we stay where we are", nil, found{NFT: none, Legacy: ours}, []Backend{Legacy}, false},
		{"configured", []Backend{Legacy}, found{NFT: none, Legacy: none}, []Backend{Legacy}, false},
		{"configured, against what is found", []Backend{Legacy}, found{NFT: nat, Legacy: none}, []Backend{Legacy}, true},
		{"configured both, twice", []Backend{NFT, Legacy, NFT}, found{NFT: none, Legacy: none}, []Backend{NFT, Legacy}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			use, warnings, err := ChooseBackends(c.configured, c.observed)
			if err != nil || !slices.Equal(use, c.want) || (len(warnings) > 0) != c.warned {
				t.Fatalf("use %v (want %v), warnings %v, error %v", use, c.want, warnings, err)
			}
		})
	}
	if _, _, err := ChooseBackends([]Backend{NFT}, found{Legacy: none}); err == nil {
		t.Fatal("a configured backend that is not installed was accepted")
	}
	if _, _, err := ChooseBackends(nil, found{}); err == nil {
		t.Fatal("a backend was chosen although none can be read")
	}
}
