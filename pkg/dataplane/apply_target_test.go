package dataplane

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
)

// What cannot be done is left out, and the pods that depend on it are dropped.
func TestUsablePartOfAState(t *testing.T) {
	v6 := testenv.Addr("2001:db8::1")
	host := testenv.Addr("192.168.7.12")
	pods := [5]netip.Addr{}
	for i := range pods {
		pods[i] = netip.AddrFrom4([4]byte{10, 244, 1, byte(2 + i)})
	}
	s := State{
		Hosts:   []netip.Addr{host, v6, testenv.Addr("::ffff:10.1.1.2")},
		Inside:  []netip.Prefix{netip.MustParsePrefix("10.244.0.1/16"), netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("10.244.0.0/16")},
		Hosted:  []Hosted{{IP: testenv.Addr(eip1), NetID: 7}, {IP: testenv.Addr(eip2), NetID: 7}, {IP: v6, NetID: 7}, {IP: testenv.Addr("::ffff:10.1.1.1"), NetID: 8}, {IP: testenv.Addr(eip1), NetID: 9}, {IP: testenv.Addr(eip3), NetID: 10}},
		Standby: []Hosted{{IP: testenv.Addr(eip1), NetID: 7}, {IP: testenv.Addr("192.168.7.204"), NetID: 11}, {IP: v6, NetID: 12}},
		Pods: []Pod{
			{IP: pods[0], Kind: Local, EgressIP: testenv.Addr(eip1)},
			{IP: pods[1], Kind: Local, EgressIP: testenv.Addr(eip2)},
			{IP: pods[2], Kind: Remote},
			{IP: pods[3], Kind: Remote, Via: []netip.Addr{host}},
			{IP: pods[4], Kind: Node},
			{IP: pods[4], Kind: Remote, Via: []netip.Addr{host}},
			{IP: v6, Kind: Remote, Via: []netip.Addr{host}},
			{IP: testenv.Addr("fd00::2"), Kind: Local, EgressIP: v6},
			{IP: testenv.Addr("fd00::3"), Kind: Local, EgressIP: testenv.Addr(eip1)},
			{IP: testenv.Addr("fd00::4"), Kind: Remote, Via: []netip.Addr{v6}},
			{IP: testenv.Addr("fd00::5"), Kind: Refuse},
			{IP: testenv.Addr("::ffff:10.244.1.7"), Kind: Node},
		},
	}
	got, problems := usable(s, digested(s, nil), map[netip.Addr]error{testenv.Addr(eip3): errors.New("refused")})
	want := State{
		Hosts:   []netip.Addr{host, v6},
		Inside:  []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")},
		Hosted:  []Hosted{{IP: testenv.Addr(eip1), NetID: 7}, {IP: v6, NetID: 7}},
		Standby: []Hosted{{IP: testenv.Addr("192.168.7.204"), NetID: 11}},
		Pods: []Pod{
			{IP: pods[0], Kind: Local, EgressIP: testenv.Addr(eip1)},
			{IP: pods[1], Kind: Drop},
			{IP: pods[2], Kind: Drop},
			{IP: pods[3], Kind: Remote, Via: []netip.Addr{host}},
			{IP: pods[4], Kind: Drop},
			{IP: v6, Kind: Remote, Via: []netip.Addr{host}},
			{IP: testenv.Addr("fd00::2"), Kind: Local, EgressIP: v6},
			{IP: testenv.Addr("fd00::3"), Kind: Drop},
			{IP: testenv.Addr("fd00::4"), Kind: Drop},
			{IP: testenv.Addr("fd00::5"), Kind: Refuse},
		},
	}
	samePrefix := func(a, b netip.Prefix) bool { return a == b }
	if diff := cmp.Diff(want, got, cmp.Comparer(sameAddr), cmp.Comparer(samePrefix)); diff != "" {
		t.Errorf("usable part (-want +got):\n%s", diff)
	}
	if len(problems) != 5 {
		t.Errorf("problems: %v", problems)
	}
}
