package testbed

import (
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
)

func TestAccessLogLine(t *testing.T) {
	l := (&Cluster{}).AccessLog()
	e, err := l.parse(`192.168.7.200 - - [23/Nov/2026:06:51:46 +0000] "GET /?pod/web HTTP/1.1" 200 44`)
	if err != nil {
		t.Fatal(err)
	}
	if e.Source != netip.MustParseAddr("192.168.7.200") || e.Method != "GET" || e.URI != "/?pod/web" || e.Status != 200 || e.Bytes != 44 || e.Time.Unix() != 1795416706 {
		t.Errorf("got %+v", e)
	}
	if _, err := l.parse("nonsense"); err == nil {
		t.Error("nonsense was read")
	}
}

func TestOptionsAreChecked(t *testing.T) {
	for _, o := range []Options{
		{Prefix: "a-b"},
		{Prefix: "toolongname"},
		{Nodes: 99},
		{Backend: "ebtables"},
		{MTU: 100},
		{Images: []string{"/nonexistent"}},
		{CNI: "calico"},
		{ProxyMode: "userspace"},
		{CNI: Flannel, NoPodCIDRs: true},
		{CNI: KubeRouter, PodAddresses: 9},
		{CNI: Flannel, DualStack: true},
		{CNI: Flannel, IPv6Only: true},
		{DualStack: true, IPv6Only: true},
		{MTU: 1200, IPv6Only: true},
	} {
		if _, err := o.withDefaults(); err == nil {
			t.Errorf("%+v was accepted", o)
		}
	}
}

// A process id that is used again is another process.
func TestProcessIdentity(t *testing.T) {
	self, err := identify(os.Getpid())
	if err != nil || !self.alive() {
		t.Fatalf("self: %+v, %v", self, err)
	}
	other := self
	other.Start++
	if other.alive() {
		t.Error("another start time is another process")
	}
	// Must not kill this process, which has its number.
	if err := other.kill(t.Context()); err != nil {
		t.Error(err)
	}
}

// Only kube-proxy's chains without rules are left out of a snapshot.
func TestStaleChains(t *testing.T) {
	const listing = "table ip kube-proxy {\n\tchain stale {\n\t}\n\n\tchain used {\n\t\tdrop\n\t}\n}\ntable inet other {\n\tchain empty {\n\t}\n}\n"
	const want = "table ip kube-proxy {\n\n\tchain used {\n\t\tdrop\n\t}\n}\ntable inet other {\n\tchain empty {\n\t}\n}\n"
	if got := withoutStaleChains(listing); got != want {
		t.Errorf("got %q\nwant %q", got, want)
	}
}

// Names that kube-router draws at each change are not compared, the rules are.
func TestPodChains(t *testing.T) {
	const save = "-A KUBE-POD-FW-D3BPPOYUG6LX4QL4 -j ACCEPT\n-A KUBE-NWPLCY-DEFAULT -j DROP\n"
	if got, want := withoutPodChains(save), "-A KUBE-POD-FW -j ACCEPT\n-A KUBE-NWPLCY-DEFAULT -j DROP\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// Of routes of IPv6, a snapshot has those that somebody made, without what passes by itself.
func TestRoutesOfIPv6(t *testing.T) {
	const listing = `default via fe80::4d:2 dev egress0 table 2000 proto 77 metric 1024 pref medium
default via fe80::1 dev eth0 proto ra metric 1024 expires 1794sec hoplimit 64 pref medium
fe80::/64 dev eth0 proto kernel metric 256 pref medium
fd00:10:244:1::/64 dev cni0 proto kernel metric 256 linkdown pref medium
local fe80::1 dev eth0 table local proto kernel metric 0 pref medium
anycast fe80:: dev eth0 table local proto kernel metric 0 pref medium
multicast ff00::/8 dev eth0 table local proto kernel metric 256 pref medium
local fd00:7::201 dev eth0 table local proto kernel metric 0 pref medium
`
	want := []string{
		"default via fe80::1 dev eth0 proto ra metric 1024 hoplimit 64 pref medium",
		"default via fe80::4d:2 dev egress0 table 2000 proto 77 metric 1024 pref medium",
		"fd00:10:244:1::/64 dev cni0 proto kernel metric 256 pref medium",
		"local fd00:7::201 dev eth0 table local proto kernel metric 0 pref medium",
	}
	all := sections()
	routes := all[slices.IndexFunc(all, func(s section) bool { return s.name == "routes6" })]
	if got := routes.lines(listing); !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
