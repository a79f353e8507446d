package iptables

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/rules"
)

// What render writes for a mark and a source address is read back; other rules
// are left out.
//
// Mutant killed: rules with more matches taken too.
func TestMarkedNATs(t *testing.T) {
	nat := MarkedNAT{Mark: rules.Mark{Value: 0x400, Mask: 0x77f}, To: netip.MustParseAddr("192.168.7.201")}
	specs := render(rules.Rule{Matches: []rules.Match{nat.Mark}, Action: rules.SourceNAT{To: nat.To}})
	specs = append(specs,
		"-m mark --mark 0x0/0x400 -j RETURN",
		"-o eth0 -m mark --mark 0x401/0x77f -j SNAT --to-source 192.168.7.202",
		"-m mark --mark 0x401/0x77f -j SNAT --to-source nowhere",
		"-m mark ! --mark 0x401/0x77f -j SNAT --to-source 192.168.7.202",
	)
	tables := Tables{rules.NAT: {Own: map[string][]string{rules.ChainPostrouting: specs}}}
	if got := tables.MarkedNATs(); !slices.Equal(got, []MarkedNAT{nat}) {
		t.Errorf("%v", got)
	}
}
