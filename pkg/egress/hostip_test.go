package egress_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// TestChooseHostIP: a Node's word does not make an address its host's that is
// someone else's.
//
// Kills the mutants first-address-counts and present-is-forgotten.
func TestChooseHostIP(t *testing.T) {
	for name, test := range map[string]struct {
		listed, present, taken string
		want, refused          string
	}{
		"the first":                                      {"10.0.0.11 10.0.1.11", "", "", "10.0.0.11", ""},
		"the first, which changed":                       {"10.0.0.12 10.0.0.11", "10.0.0.11", "", "10.0.0.12", ""},
		"none is listed, none is known":                  {"", "", "", "", ""},
		"none is listed: what is known stays":            {"", "10.0.0.11", "", "10.0.0.11", ""},
		"the first is an egress IP: the present stays":   {"10.0.0.200 10.0.1.11 10.0.0.11", "10.0.0.11", "10.0.0.200", "10.0.0.11", "10.0.0.200"},
		"the first is an egress IP, and nothing present": {"10.0.0.200 10.0.0.11", "", "10.0.0.200", "10.0.0.11", "10.0.0.200"},
		"the present is not listed any more":             {"10.0.0.200 10.0.0.201 10.0.0.12", "10.0.0.11", "10.0.0.200 10.0.0.201", "10.0.0.12", "10.0.0.200"},
		"all belong to others: the present stays":        {"10.0.0.200", "10.0.0.11", "10.0.0.200", "10.0.0.11", "10.0.0.200"},
		"all belong to others, and nothing present":      {"10.0.0.200", "", "10.0.0.200", "", "10.0.0.200"},
		"a request for the host's own address":           {"10.0.0.11", "10.0.0.11", "10.0.0.11", "10.0.0.11", ""},
	} {
		t.Run(name, func(t *testing.T) {
			var listed []netip.Addr
			for ip := range strings.FieldsSeq(test.listed) {
				listed = append(listed, netip.MustParseAddr(ip))
			}
			address := func(s string) netip.Addr {
				if s == "" {
					return netip.Addr{}
				}
				return netip.MustParseAddr(s)
			}
			got := egress.ChooseHostIP(listed, address(test.present), func(ip netip.Addr) string {
				for taken := range strings.FieldsSeq(test.taken) {
					if taken == ip.String() {
						return "an egress IP"
					}
				}
				return ""
			})
			if got.IP != address(test.want) || got.Refused != address(test.refused) {
				t.Errorf("got %+v, want %q, refused %q", got, test.want, test.refused)
			}
			if (got.Why == "") != (test.refused == "") {
				t.Errorf("refused %s because of %q", got.Refused, got.Why)
			}
		})
	}
}

// A host keeps its hostIP of IPv4 while its agent works with it, even if the Node lists none of
// IPv4 for a while. Nothing else keeps it: an agent that has lost the address still publishes
// where it was, and is not ready.
//
// Mutants killed: what-the-kubelet-forgets-is-gone, what-the-agent-has-lost-stays.
func TestHostKeepsItsIPv4(t *testing.T) {
	t.Parallel()
	four, six := netip.MustParseAddr("10.0.0.11"), netip.MustParseAddr("fd00::11")
	has := egress.Host{IP: four, Confirmed: true, AgentReady: true}
	with := func(change func(*egress.Host)) egress.Host {
		h := has
		change(&h)
		return h
	}
	for name, c := range map[string]struct {
		host   egress.Host
		listed []netip.Addr
		want   bool
	}{
		"its agent has it":               {has, []netip.Addr{six}, true},
		"its agent has another":          {with(func(h *egress.Host) { h.Confirmed = false }), []netip.Addr{six}, false},
		"its agent has lost it":          {with(func(h *egress.Host) { h.AgentReady = false }), []netip.Addr{six}, false},
		"the Node lists another of IPv4": {has, []netip.Addr{netip.MustParseAddr("10.0.0.12")}, false},
		"the Node lists nothing":         {has, nil, false},
		"it is one of IPv6":              {with(func(h *egress.Host) { h.IP = netip.MustParseAddr("fd00::12") }), []netip.Addr{six}, false},
		"there is none":                  {egress.Host{}, []netip.Addr{six}, false},
	} {
		choice, stays := c.host.StillIPv4(c.listed)
		if stays != c.want || stays && (choice.IP != four || choice.Refused != six || choice.Why == "") {
			t.Errorf("%s: %+v, %t", name, choice, stays)
		}
	}
}
