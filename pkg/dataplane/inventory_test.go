package dataplane

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// given: a host that serves, among objects of others of each kind; when the
// inventory is walked in its order, then each kind is listed, removing it leaves
// none of it and all of the kinds that come later, and the objects of others are as
// they were.
func TestInventoryListsAndRemovesEachKind(t *testing.T) {
	w := newWorld(t, 2, onlyNFT())
	w.second(t)
	n := w.nodes[0]
	here, there := n.addPod(t, "here", 2), n.addPod(t, "there", 3)
	foreign := map[string]struct{ plant, show string }{
		"iptables chain": {"iptables-nft -t mangle -N THEIRS; iptables-nft -t mangle -A PREROUTING -j THEIRS", "iptables-nft-save -t mangle | grep THEIRS"},
		"nftables table": {"nft add table inet egressip-of-others", "nft list table inet egressip-of-others"},
		"nftables tables of links": {
			"nft add table bridge egressip-of-others; nft add table inet egressip-links-of-others", "nft list table bridge egressip-of-others",
		},
		"`ip rule`": {"ip rule add fwmark 0x10000/0x10000 lookup 100 priority 501", "ip rule show priority 501"},
		"route":     {"ip route add 198.51.100.0/24 via 192.168.7.1 table 100", "ip route show table 100"},
		"device":    {"ip link add egress1 type vxlan external dstport 4444", "ip -o link show egress1"},
		"guard": {
			"tc qdisc add dev eth0 clsact; tc filter add dev eth0 egress protocol ip prio 78 u32 match ip dst 198.51.100.1/32 flowid 1:1",
			"tc filter show dev eth0 egress | grep 'pref 78'",
		},
		"reverse path filter of an interface that egress IPs leave by and that is not the uplink": {
			"sysctl -qw net.ipv4.conf.cni0.rp_filter=2; ip rule add iif cni0 nop priority 500", "sysctl net.ipv4.conf.cni0.rp_filter; ip rule show iif cni0",
		},
		"egress IP on an interface": {"ip address add 192.168.7.77/24 dev eth0 label eth0:vip", "ip -o -4 address show label eth0:vip | sed 's/valid_lft.*//'"},
		"ipset":                     {"ipset create egress-of-others hash:ip", "ipset list -n egress-of-others"},
		"BPF map":                   {"", "ls -d " + n.cfg.PinDir + "/of-others"},
	}
	for _, f := range foreign {
		n.Run(t, f.plant)
	}
	n.host(eip1, 7)
	n.hostFurther(further1, gateway2, 9)
	here.set(local(eip1, 7))
	there.set(remote(8, w.nodes[1]))
	n.apply(t)
	// The host has just been moved from one backend to the other, and not quite.
	n.Do(t, func() {
		_, err := n.dp.nft.Ensure()
		must(t, err)
	})
	must(t, os.Mkdir(filepath.Join(n.cfg.PinDir, "of-others"), 0o700))
	before := map[string]string{}
	for kind, f := range foreign {
		before[kind] = n.Run(t, f.show)
	}

	lists := func() map[string][]string {
		all := map[string][]string{}
		n.Do(t, func() {
			for _, k := range inventory() {
				if k.list != nil {
					var err error
					all[k.object], err = k.list(t.Context(), n.dp)
					must(t, err)
				}
			}
		})
		return all
	}
	var observed kernel
	n.Do(t, func() {
		var err error
		observed, err = observe(t.Context(), view{d: n.dp})
		must(t, err)
	})
	rest := lists()
	for _, k := range inventory() {
		if k.remove == nil {
			continue
		}
		if k.list != nil && len(rest[k.object]) == 0 {
			t.Errorf("%s: none is listed", k.object)
		}
		for _, object := range rest[k.object] {
			for _, theirs := range []string{"THEIRS", "500", "198.51.100", "egress1", "192.168.7.77", "of-others"} {
				if strings.Contains(strings.TrimPrefix(object, "BPF map "+n.cfg.PinDir), theirs) {
					t.Errorf("%s: lists %q", k.object, object)
				}
			}
		}
		n.Do(t, func() { must(t, k.remove(t.Context(), n.dp, observed)) })
		if k.list != nil {
			rest[k.object] = nil
		}
		now := lists()
		for kind := range now {
			if diff := cmp.Diff(fmt.Sprint(rest[kind]), fmt.Sprint(now[kind])); diff != "" {
				t.Errorf("after the removal of %s, %s (-want +got):\n%s", k.object, kind, diff)
			}
		}
	}
	for kind, f := range foreign {
		if diff := cmp.Diff(before[kind], n.Run(t, f.show)); diff != "" {
			t.Errorf("%s of others (-before +after):\n%s", kind, diff)
		}
	}
	for _, k := range inventory() {
		if _, planted := foreign[k.object]; k.list != nil && !planted {
			t.Errorf("%s: the test plants none of others", k.object)
		}
	}
}

// The ownership table of docs/design.md is written from the inventory, with -update.
func TestOwnershipTableIsTheInventory(t *testing.T) {
	const begin, end = "<!-- begin of the inventory -->\n", "<!-- end of the inventory -->\n"
	path := filepath.Join("..", "..", "docs", "design.md")
	doc, err := os.ReadFile(path)
	must(t, err)
	before, rest, ok := strings.Cut(string(doc), begin)
	got, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has no %q and %q", path, begin, end)
	}
	var want strings.Builder
	want.WriteString("| object | mark of ownership |\n|---|---|\n")
	for _, k := range inventory() {
		fmt.Fprintf(&want, "| %s | %s |\n", k.object, k.mark)
	}
	if *updateGolden {
		must(t, os.WriteFile(path, []byte(before+begin+want.String()+end+after), 0o600))
		return
	}
	if diff := cmp.Diff(want.String(), got); diff != "" {
		t.Errorf("%s (-update writes it again; -want +got):\n%s", path, diff)
	}
}
