package testbed

import (
	"net/netip"
	"os"
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
		{ProxyMode: "ipvs"},
		{CNI: Flannel, NoPodCIDRs: true},
		{CNI: KubeRouter, PodAddresses: 9},
		{CNI: Flannel, DualStack: true},
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
