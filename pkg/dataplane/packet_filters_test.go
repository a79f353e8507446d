package dataplane

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/warning"
)

// nodeFilter is a packet filter of nodes that is not Kubernetes' own.
type nodeFilter struct {
	name string
	// begin sets it up as an admin would for a cluster: pods may reach everything. open is
	// what the admin does for egress IPs, and reload is its way to read its settings again.
	begin, open, reload func(*testing.T, *node)
	// closed are the warnings before it is opened, and remedy is a part of their advice.
	closed []warning.Reason
	remedy string
	// rarer: it is tested with the whole matrix only.
	rarer bool
	// container is the address of a container at docker0, or empty.
	container string
	// flushes: a reload removes all rules of iptables, ours too.
	flushes bool
	// drops: the pods with egress IPs lose their packets, as it rewrites them first.
	drops bool
}

// text returns a filter as a script of rules, which is a reload as well. Lines that begin
// with "#open " are those that the admin adds.
func (f nodeFilter) text(script string) nodeFilter {
	opened := map[*node]bool{}
	f.reload = func(t *testing.T, n *node) {
		t.Helper()
		if opened[n] {
			n.Run(t, strings.ReplaceAll(script, "#open ", ""))
			return
		}
		n.Run(t, script)
	}
	f.begin = f.reload
	f.open = func(t *testing.T, n *node) {
		t.Helper()
		opened[n] = true
		f.reload(t, n)
	}
	return f
}

// nativeRules are /etc/nftables.conf of a router, which flushes everything first, as those
// that distributions ship, and has source NAT at a priority.
func nativeRules(priority string) string {
	return `nft -f - <<-EOF
		flush ruleset
		table inet router {
			chain input {
				type filter hook input priority filter; policy drop;
				ct state { established, related } accept
				iif lo accept
				ip protocol icmp accept
				tcp dport 22 accept
				#open udp dport 9789 accept
			}
			chain forward {
				type filter hook forward priority filter; policy drop;
				ct state { established, related } accept
				ip saddr 10.244.0.0/16 accept
				#open iifname egress0 accept
			}
		}
		table ip router {
			chain post {
				type nat hook postrouting priority ` + priority + `;
				ip saddr 10.244.0.0/16 ip daddr != 10.244.0.0/16 masquerade
			}
		}
		EOF`
}

const (
	// ufwRules are those of ufw 0.36 that matter. Its chains hang in INPUT and FORWARD of
	// iptables, whose policy is DROP; a reload empties them, and fills them again.
	ufwRules = `
		for c in before-input user-input before-forward user-forward; do IPTABLES -N ufw-$c 2>/dev/null || IPTABLES -F ufw-$c; done
		for c in INPUT FORWARD; do
			l=ufw-before-$(echo $c | tr A-Z a-z)
			IPTABLES -C $c -j $l 2>/dev/null || IPTABLES -A $c -j $l
			IPTABLES -P $c DROP
			IPTABLES -A $l -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
			IPTABLES -A $l -p icmp --icmp-type 8 -j ACCEPT
		done
		IPTABLES -A ufw-before-input -i lo -j ACCEPT
		IPTABLES -A ufw-before-input -j ufw-user-input
		IPTABLES -A ufw-user-input -p tcp --dport 22 -j ACCEPT
		#open IPTABLES -A ufw-user-input -p udp --dport 9789 -j ACCEPT
		IPTABLES -A ufw-before-forward -j ufw-user-forward
		IPTABLES -A ufw-user-forward -s 10.244.0.0/16 -j ACCEPT`

	// firewalldRules are those of firewalld 1.3 that matter, with its nftables backend:
	// zones public, which masquerades, and trusted. A reload replaces its table, and has
	// another one that drops what is new meanwhile.
	firewalldRules = `
		nft 'table inet firewalld_policy_drop { chain filter_forward { type filter hook forward priority filter + 9; policy drop; ct state { established, related } accept; }; }'
		nft delete table inet firewalld 2>/dev/null || true
		nft -f - <<-EOF
		table inet firewalld {
			chain nat_POST_public {
				ip daddr 10.244.0.0/16 return
				meta nfproto ipv4 oifname != "lo" masquerade
			}
			chain nat_POSTROUTING {
				type nat hook postrouting priority srcnat + 10; policy accept;
				jump nat_POST_public
			}
			chain filter_IN_public {
				tcp dport 22 accept
				#open udp dport 9789 accept
				meta l4proto { icmp, ipv6-icmp } accept
				reject with icmpx admin-prohibited
			}
			chain filter_trusted { accept; }
			chain filter_INPUT_ZONES {
				ip saddr 10.244.0.0/16 goto filter_trusted
				goto filter_IN_public
			}
			chain filter_INPUT {
				type filter hook input priority filter + 10; policy accept;
				ct state { established, related } accept
				ct status dnat accept
				iifname "lo" accept
				ct state invalid drop
				jump filter_INPUT_ZONES
				reject with icmpx admin-prohibited
			}
			chain filter_FWD_public { reject with icmpx admin-prohibited; }
			chain filter_FORWARD_ZONES {
				ip saddr 10.244.0.0/16 goto filter_trusted
				#open iifname egress0 goto filter_trusted
				goto filter_FWD_public
			}
			chain filter_FORWARD {
				type filter hook forward priority filter + 10; policy accept;
				ct state { established, related } accept
				ct status dnat accept
				ct state invalid drop
				jump filter_FORWARD_ZONES
				reject with icmpx admin-prohibited
			}
		}
		EOF
		nft delete table inet firewalld_policy_drop`

	// dockerRules are those of Docker 28 with iptables: FORWARD drops, and its chains are
	// first there. A restart of the daemon makes them again. The last line is of the CNI.
	dockerRules = `
		for c in USER FORWARD CT BRIDGE; do IPTABLES -N DOCKER-$c 2>/dev/null || IPTABLES -F DOCKER-$c; done
		IPTABLES -N DOCKER 2>/dev/null || IPTABLES -F DOCKER
		IPTABLES -P FORWARD DROP
		for c in FORWARD USER; do IPTABLES -D FORWARD -j DOCKER-$c 2>/dev/null || true; IPTABLES -I FORWARD -j DOCKER-$c; done
		IPTABLES -A DOCKER ! -i docker0 -o docker0 -j DROP
		IPTABLES -A DOCKER-CT -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
		IPTABLES -A DOCKER-BRIDGE -o docker0 -j DOCKER
		IPTABLES -A DOCKER-FORWARD -j DOCKER-CT
		IPTABLES -A DOCKER-FORWARD -j DOCKER-BRIDGE
		IPTABLES -A DOCKER-FORWARD -i docker0 -j ACCEPT
		IPTABLES -t nat -N DOCKER 2>/dev/null || IPTABLES -t nat -F DOCKER
		IPTABLES -t nat -C PREROUTING -m addrtype --dst-type LOCAL -j DOCKER 2>/dev/null || IPTABLES -t nat -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
		IPTABLES -t nat -D POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE 2>/dev/null || true
		IPTABLES -t nat -I POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
		for w in s d; do IPTABLES -C FORWARD -$w 10.244.0.0/16 -j ACCEPT 2>/dev/null || IPTABLES -A FORWARD -$w 10.244.0.0/16 -j ACCEPT; done`

	// dockerTable is that of Docker 29 with nftables. It drops what goes to containers only.
	dockerTable = `nft -f - <<-EOF
		table ip docker-bridges
		delete table ip docker-bridges
		table ip docker-bridges {
			chain filter-forward-in__docker0 {
				ct state established,related counter accept
				iifname "docker0" counter accept
				counter drop
			}
			chain filter-forward-out__docker0 { counter accept; }
			chain nat-postrouting-out__docker0 { oifname != "docker0" ip saddr 172.17.0.0/16 counter masquerade; }
			map in { type ifname : verdict; elements = { "docker0" : jump filter-forward-in__docker0 }; }
			map out { type ifname : verdict; elements = { "docker0" : jump filter-forward-out__docker0 }; }
			map nat { type ifname : verdict; elements = { "docker0" : jump nat-postrouting-out__docker0 }; }
			chain filter-FORWARD {
				type filter hook forward priority filter; policy accept;
				oifname vmap @in
				iifname vmap @out
			}
			chain nat-POSTROUTING {
				type nat hook postrouting priority srcnat; policy accept;
				iifname vmap @nat
			}
		}
		EOF`
)

// textFilters are filters of nodes as text, with the program of iptables that they use.
func textFilters(iptables string) []nodeFilter {
	of := func(script string) string { return strings.ReplaceAll(script, "IPTABLES", iptables) }
	port := []warning.Reason{warning.OverlayPortClosed}
	const container = "172.17.0.2"
	return []nodeFilter{
		nodeFilter{name: "ufw", closed: port, remedy: "ufw allow 9789/udp"}.text(of(ufwRules)),
		nodeFilter{name: "firewalld", closed: port, remedy: "firewall-cmd --permanent --add-port=9789/udp"}.text(firewalldRules),
		nodeFilter{name: "Docker with iptables", container: container}.text(of(dockerRules)),
		nodeFilter{name: "Docker with nftables", rarer: true, container: container}.text(dockerTable),
		nodeFilter{name: "native, behind ours", rarer: true, closed: port, remedy: "accept UDP port 9789"}.text(nativeRules("srcnat")),
		nodeFilter{name: "native, before ours", closed: append(port, warning.ForeignNATFirst), remedy: "give the chain priority 100", drops: true}.text(nativeRules("0")),
	}
}

// given: nodes with a packet filter of their own, by which pods may reach everything; then
// pods with egress IPs leave with them or not at all, a warning names what the filter
// stops, and its remedy ends that; nobody else's packets change, nor do the filter's
// rules; and after a reload of the filter one pass puts right what it took.
//
// Mutants killed: any-source-opens-a-table, sources-do-not-let-pass.
func TestPacketFiltersOfNodes(t *testing.T) {
	rules := []rulesOf{ownTable()}
	if wholeMatrix() {
		rules = append(rules, onlyNFT(), ownTableLegacy(), onlyLegacy())
	}
	for _, r := range rules {
		for _, f := range textFilters(r.iptables()) {
			if f.rarer && !wholeMatrix() {
				continue
			}
			if !r.table() && strings.HasPrefix(f.name, "native") {
				continue // it flushes ours as well: TestNobodyElseChangesOurTable
			}
			t.Run(r.name+"/"+f.name, func(t *testing.T) { newFiltered(t, r, f).play(t) })
		}
	}
}

// filtered is a cluster whose nodes have a packet filter.
type filtered struct {
	*world
	f                                 nodeFilter
	here, there, plain, dropped, away *podMachine
	container                         *machine
}

func newFiltered(t *testing.T, rules rulesOf, f nodeFilter) *filtered {
	t.Helper()
	w := &filtered{world: newWorld(t, 2, rules), f: f}
	n1, n2 := w.nodes[0], w.nodes[1]
	w.here, w.plain = n1.addPod(t, "here", 2), n1.addPod(t, "plain", 3)
	w.there, w.dropped, w.away = n2.addPod(t, "there", 2), n2.addPod(t, "dropped", 3), n2.addPod(t, "away", 4)
	w.away.serveWhoami(t, w.away.ip.String()+":8080")
	n1.serveWhoami(t, n1.ip.String()+":22")
	n1.serveWhoami(t, n1.ip.String()+":8443")
	if f.container != "" {
		w.container = newMachine(t, "container")
		connect(t, w.container, "eth0", []string{f.container + "/16"}, n1.machine, "v-container", nil)
		n1.Run(t, "ip link add docker0 type bridge; ip link set docker0 up; ip address add 172.17.0.1/16 dev docker0; ip link set v-container master docker0")
		w.container.Run(t, "ip route add default via 172.17.0.1")
	}
	for _, n := range w.nodes {
		f.begin(t, n)
	}
	return w
}

// others are the packets that are none of ours, as their receivers see them.
func (w *filtered) others(t *testing.T) (seen []string) {
	t.Helper()
	n1 := w.nodes[0]
	ask := func(name string, m *machine, addr string) {
		from, err := m.whoami(t, addr)
		if err != nil {
			from = "nobody"
		}
		seen = append(seen, fmt.Sprintf("%s: from %s", name, from))
	}
	ask("pod to the outside", w.plain.machine, bastionIP+":8080")
	ask("pod to pod", w.plain.machine, w.away.ip.String()+":8080")
	ask("node to the outside", n1.machine, bastionIP+":8080")
	ask("outside to an open port", w.bastion, n1.ip.String()+":22")
	if w.container != nil {
		ask("container to the outside", w.container, bastionIP+":8080")
	}
	return seen
}

// rulesOfOthers are all rules of a node but ours.
func (n *node) rulesOfOthers(t *testing.T) string {
	t.Helper()
	all := n.Run(t, `iptables-nft-save; iptables-legacy-save
		nft list tables | grep -v -e egressip -e '^table ip6* \(raw\|mangle\|nat\|filter\)$' | while read table; do nft -s list $table; done`)
	all = regexp.MustCompile(`(?m)^#.*\n|\[\d+:\d+\]|counter packets \d+ bytes \d+`).ReplaceAllString(all, "")
	var rules []string
	for line := range strings.Lines(all) {
		// The tables themselves are made by whoever asks for them.
		if !strings.Contains(line, "EGRESSIP-") && !strings.HasPrefix(line, "*") && line != "COMMIT\n" && !strings.HasSuffix(line, " ACCEPT \n") {
			rules = append(rules, line)
		}
	}
	return strings.Join(rules, "")
}

func (w *filtered) play(t *testing.T) {
	t.Helper()
	n1, n2 := w.nodes[0], w.nodes[1]
	var always []warning.Reason
	flushed := w.f.flushes && n1.cfg.IPTables
	if flushed {
		always = append(always, warning.RulesFlushed)
	}
	packets, rules := w.others(t), n1.rulesOfOthers(t)
	unchanged := func(when string) {
		t.Helper()
		if diff := cmp.Diff(packets, w.others(t)); diff != "" {
			t.Errorf("%s: packets of others (-before us +with us):\n%s", when, diff)
		}
		if diff := cmp.Diff(rules, n1.rulesOfOthers(t)); diff != "" {
			t.Errorf("%s: rules of others (-before +after):\n%s", when, diff)
		}
	}
	w.seen.only(9001, eip1)
	w.seen.only(9002, eip1)
	w.seen.only(9003)
	n1.host(eip1, 7)
	w.here.set(local(eip1, 7))
	w.there.set(remote(7, n1))
	w.dropped.set(Pod{Kind: Drop})
	for _, p := range []*podMachine{w.plain, w.away} {
		p.set(Pod{Kind: Node})
	}
	w.applyAll(t)
	unchanged("while the overlay is closed")
	here, there := startSender(t, w.here, w.bastion, 9001), startSender(t, w.there, w.bastion, 9002)
	startSender(t, w.dropped, w.bastion, 9003)
	w.warnsOf(t, append(always, w.f.closed...))
	if slices.Contains(w.f.closed, warning.OverlayPortClosed) {
		w.silent(t, there)
	}
	if flushed {
		w.judgeNothing(n1, n2)
	}
	for _, n := range w.nodes {
		w.f.open(t, n)
		n.apply(t)
	}
	rules = n1.rulesOfOthers(t)
	if w.f.drops {
		w.silent(t, here)
		w.warnsOf(t, []warning.Reason{warning.ForeignNATFirst})
		return
	}
	w.warnsOf(t, always)
	w.flows(t, here, eip1)
	w.flows(t, there, eip1)
	unchanged("after it is open")
	for round := range 2 {
		w.seen.says(fmt.Sprintf("reload %d", round))
		for _, n := range []*node{n1, n2} {
			w.f.reload(t, n)
			n.apply(t)
		}
		w.flows(t, here, eip1)
		w.flows(t, there, eip1)
	}
	unchanged("after reloads")
	w.judgeNothing(n1, n2)
	n1.Do(t, func() { must(t, n1.dp.Cleanup(context.WithoutCancel(t.Context()))) })
	n1.stop(t)
	unchanged("after us")
}

// judgeNothing lets the pods' packets have any source from now on.
func (w *filtered) judgeNothing(nodes ...*node) {
	sources := []string{eip1}
	for _, n := range nodes {
		sources = append(sources, n.ip.String())
	}
	for _, p := range []*podMachine{w.here, w.there, w.dropped} {
		sources = append(sources, p.ip.String())
	}
	for port := uint16(9001); port <= 9003; port++ {
		w.seen.only(port, sources...)
	}
}

// warnsOf expects warnings with exactly these reasons on the egress host, and the filter's
// remedy in one of them.
func (w *filtered) warnsOf(t *testing.T, want []warning.Reason) {
	t.Helper()
	found := w.nodes[0].warns(t)
	var got []warning.Reason
	for _, f := range found {
		got = append(got, f.Reason)
	}
	slices.Sort(got)
	want = slices.Sorted(slices.Values(want))
	if !slices.Equal(got, want) {
		t.Fatalf("warnings, wanted %v:\n%s", want, warning.Lines(found))
	}
	if len(w.f.closed) > 0 && slices.Contains(want, w.f.closed[0]) && !strings.Contains(warning.Lines(found), w.f.remedy) {
		t.Errorf("no warning advises %q:\n%s", w.f.remedy, warning.Lines(found))
	}
}
