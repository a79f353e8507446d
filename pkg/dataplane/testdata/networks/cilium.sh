# What Cilium has on a node with kube-proxy, native routing, host routing by the kernel and
# masquerading by iptables. Jumps are put first, and chains made again beside renamed ones.
# The rule of table local is behind ours. What its BPF programs do with packets that the
# kernel forwards is in table "bpf", but for the delivery to pods, which is a program:
# packets of pods come with their identity and 0xf00 in their mark. KEEP=yes: what leaves
# by the uplink without that is dropped, so that it is seen.
ROUTER=10.244.$N.254

chains() {
	echo "filter INPUT CILIUM_INPUT
		filter OUTPUT CILIUM_OUTPUT
		raw OUTPUT CILIUM_OUTPUT_raw
		nat POSTROUTING CILIUM_POST_nat
		nat OUTPUT CILIUM_OUTPUT_nat
		nat PREROUTING CILIUM_PRE_nat
		mangle POSTROUTING CILIUM_POST_mangle
		mangle PREROUTING CILIUM_PRE_mangle
		raw PREROUTING CILIUM_PRE_raw
		filter FORWARD CILIUM_FORWARD"
}

again() {
	chains | while read table hook chain; do $IPTABLES -t $table -E $chain OLD_$chain 2>/dev/null || true; done
	$IPTABLES-restore --noflush <<-END
		*raw
		:CILIUM_PRE_raw - [0:0]
		:CILIUM_OUTPUT_raw - [0:0]
		-A CILIUM_PRE_raw -m mark --mark 0x200/0xf00 -m comment --comment "cilium: NOTRACK for proxy traffic" -j CT --notrack
		-A CILIUM_OUTPUT_raw -o cilium_host -m mark --mark 0xa00/0xfffffeff -m comment --comment "cilium: NOTRACK for proxy return traffic" -j CT --notrack
		COMMIT
		*mangle
		:CILIUM_PRE_mangle - [0:0]
		:CILIUM_POST_mangle - [0:0]
		-A CILIUM_PRE_mangle -m socket --transparent -m mark ! --mark 0xe00/0xf00 -m mark ! --mark 0x800/0xf00 -m comment --comment "cilium: any->pod redirect proxied traffic to host proxy" -j MARK --set-mark 0x200
		COMMIT
		*nat
		:CILIUM_PRE_nat - [0:0]
		:CILIUM_OUTPUT_nat - [0:0]
		:CILIUM_POST_nat - [0:0]
		-A CILIUM_POST_nat -s 10.244.$N.0/24 -m set --match-set cilium_node_set_v4 dst -m comment --comment "exclude traffic to cluster nodes from masquerade" -j ACCEPT
		-A CILIUM_POST_nat -s 10.244.$N.0/24 ! -d 10.244.0.0/16 ! -o cilium_+ -m comment --comment "cilium masquerade non-cluster" -j MASQUERADE
		-A CILIUM_POST_nat -m mark --mark 0xa00/0xe00 -m comment --comment "exclude proxy return traffic from masquerade" -j ACCEPT
		-A CILIUM_POST_nat -s 127.0.0.1 -o cilium_host -m comment --comment "cilium host->cluster from 127.0.0.1 masquerade" -j SNAT --to-source $ROUTER
		-A CILIUM_POST_nat -o cilium_host -m mark --mark 0xf00/0xf00 -m conntrack --ctstate DNAT -m comment --comment "hairpin traffic that originated from a local pod" -j SNAT --to-source $ROUTER
		COMMIT
		*filter
		:CILIUM_INPUT - [0:0]
		:CILIUM_OUTPUT - [0:0]
		:CILIUM_FORWARD - [0:0]
		-A CILIUM_INPUT -m mark --mark 0x200/0xf00 -m comment --comment "cilium: ACCEPT for proxy traffic" -j ACCEPT
		-A CILIUM_OUTPUT -m mark --mark 0xa00/0xe00 -m comment --comment "cilium: ACCEPT for proxy traffic" -j ACCEPT
		-A CILIUM_FORWARD -o cilium_host -m comment --comment "cilium: any->cluster on cilium_host forward accept" -j ACCEPT
		-A CILIUM_FORWARD -i cilium_host -m comment --comment "cilium: cluster->any on cilium_host forward accept (nodeport)" -j ACCEPT
		-A CILIUM_FORWARD -i lxc+ -m comment --comment "cilium: cluster->any on lxc+ forward accept" -j ACCEPT
		-A CILIUM_FORWARD -i cilium_net -m comment --comment "cilium: cluster->any on cilium_net forward accept (nodeport)" -j ACCEPT
		-A CILIUM_OUTPUT -m mark ! --mark 0xd00/0xf00 -m mark ! --mark 0xe00/0xf00 -m mark ! --mark 0x400/0xf00 -m mark ! --mark 0xa00/0xe00 -m comment --comment "cilium: host->any mark as from host" -j MARK --set-xmark 0xc00/0xf00
		COMMIT
	END
	chains | while read table hook chain; do
		feeder="-m comment --comment 'cilium-feeder: $chain' -j"
		eval "$IPTABLES -t $table -I $hook $feeder $chain"
		eval "$IPTABLES -t $table -D $hook $feeder OLD_$chain" 2>/dev/null || continue
		$IPTABLES -t $table -F OLD_$chain
		$IPTABLES -t $table -X OLD_$chain
	done
}

node() {
	sysctl -qw net.ipv4.conf.all.rp_filter=0
	ip link add cilium_host arp off type veth peer name cilium_net arp off
	sysctl -qw net.ipv4.conf.cilium_host.rp_filter=0 net.ipv4.conf.cilium_net.rp_filter=0
	ip link set cilium_net up
	ip link set cilium_host up
	ip address add $ROUTER/32 dev cilium_host scope link
	ip route add $ROUTER dev cilium_host scope link proto kernel
	ip route add 10.244.$N.0/24 via $ROUTER dev cilium_host src $ROUTER proto kernel
	ip rule add from all lookup local priority 100 proto kernel
	ip rule del priority 0
	ip rule add fwmark 0x200/0xf00 lookup 2004 priority 9 proto kernel
	ip route add local default dev lo table 2004 proto kernel
	ipset create cilium_node_set_v4 hash:ip
	ipset add cilium_node_set_v4 192.168.7.11
	ipset add cilium_node_set_v4 192.168.7.12
	nft -f - <<-END
		table ip bpf {
			chain from-container {
				type filter hook prerouting priority -500; policy accept;
				iifname "lxc*" meta mark set 0x12340f00
			}
			chain to-netdev {
				type filter hook postrouting priority 500; policy accept;
			}
		}
	END
	[ $KEEP = no ] || nft 'add rule ip bpf to-netdev iifname "lxc*" oifname eth0 meta mark & 0xffff0f00 != 0x12340f00 drop'
	again
}

pod() {
	sysctl -qw net.ipv4.conf.$1.rp_filter=0 net.ipv4.conf.$1.forwarding=1
}
