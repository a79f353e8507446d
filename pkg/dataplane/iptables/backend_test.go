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
		mixed      []Backend
	}{
		{"a host without rules", nil, found{NFT: none, Legacy: none}, []Backend{NFT}, nil},
		{"legacy alone is installed", nil, found{Legacy: none}, []Backend{Legacy}, nil},
		{"kube-proxy in nft", nil, found{NFT: nat, Legacy: none}, []Backend{NFT}, nil},
		{"kube-proxy in legacy", nil, found{NFT: none, Legacy: nat}, []Backend{Legacy}, nil},
		{"a firewall in nft, kube-proxy in legacy", nil, found{NFT: filter, Legacy: nat}, []Backend{Legacy}, nil},
		{"NAT in both", nil, found{NFT: nat, Legacy: nat}, []Backend{NFT, Legacy}, []Backend{NFT, Legacy}},
		{"no NAT, a firewall in legacy", nil, found{NFT: none, Legacy: filter}, []Backend{Legacy}, nil},
		{"firewalls in both", nil, found{NFT: filter, Legacy: filter}, []Backend{NFT}, nil},
		{"before kube-proxy starts, we stay where we are", nil, found{NFT: none, Legacy: ours}, []Backend{Legacy}, nil},
		{"configured", []Backend{Legacy}, found{NFT: none, Legacy: none}, []Backend{Legacy}, nil},
		{"configured, against what is found", []Backend{Legacy}, found{NFT: nat, Legacy: none}, []Backend{Legacy}, []Backend{NFT}},
		{"configured both, twice", []Backend{NFT, Legacy, NFT}, found{NFT: none, Legacy: none}, []Backend{NFT, Legacy}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			use, mixed, err := ChooseBackends(c.configured, c.observed)
			if err != nil || !slices.Equal(use, c.want) || !slices.Equal(mixed, c.mixed) {
				t.Fatalf("use %v (want %v), mixed %v (want %v), error %v", use, c.want, mixed, c.mixed, err)
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
