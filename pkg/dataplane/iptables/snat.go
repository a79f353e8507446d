package iptables

import (
	"fmt"
	"net/netip"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/rules"
)

// snatTarget starts the target of a source NAT rule.
const snatTarget = "-j SNAT --to-source "

// MarkedNAT is a rule that gives packets of a mark a source address.
type MarkedNAT struct {
	Mark rules.Mark
	To   netip.Addr
}

// MarkedNATs reads back, from our chains of table nat, the rules that match one
// mark and give a source address. Other rules are left out.
func (t Tables) MarkedNATs() []MarkedNAT {
	var list []MarkedNAT
	for _, specs := range t[rules.NAT].Own {
		for _, spec := range specs {
			if nat, ok := parseMarkedNAT(spec); ok {
				list = append(list, nat)
			}
		}
	}
	return list
}

// parseMarkedNAT reads a rule that render wrote.
func parseMarkedNAT(spec string) (nat MarkedNAT, ok bool) {
	var to string
	n, err := fmt.Sscanf(spec, "-m mark --mark 0x%x/0x%x "+snatTarget+"%s", &nat.Mark.Value, &nat.Mark.Mask, &to)
	if err != nil || n != 3 {
		return MarkedNAT{}, false
	}
	nat.To, err = netip.ParseAddr(to)
	return nat, err == nil
}
