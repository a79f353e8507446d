# What the Amazon VPC CNI has on a node: pods with addresses of the nodes' own network, rules
# of routing by address and by its mark 0x80, and source NAT for what leaves the VPC, which
# is 192.168.7.0/24 here. CONNMARK is the program that has the marks of connections:
# iptables, or nftables as where iptables is iptables-nft.

connmark_iptables() {
	# The snapshot deletes and appends the rule that restores marks with each pass.
	jump='-i eni+ -m comment --comment "AWS, outbound connections" -j AWS-CONNMARK-CHAIN-0'
	restore='-m comment --comment "AWS, CONNMARK" -j CONNMARK --restore-mark --nfmask 0x80 --ctmask 0x80'
	$IPTABLES -t nat -N AWS-CONNMARK-CHAIN-0 2>/dev/null || $IPTABLES -t nat -F AWS-CONNMARK-CHAIN-0
	eval "$IPTABLES -t nat -C PREROUTING $jump 2>/dev/null || $IPTABLES -t nat -A PREROUTING $jump"
	eval "$IPTABLES -t nat -D PREROUTING $restore 2>/dev/null || true; $IPTABLES -t nat -A PREROUTING $restore"
	$IPTABLES -t nat -A AWS-CONNMARK-CHAIN-0 -d 192.168.7.0/24 -j RETURN
	$IPTABLES -t nat -A AWS-CONNMARK-CHAIN-0 -j CONNMARK --set-xmark 0x80/0x80
}

# It sets the whole mark of each packet that has a translation to decide, not its bit alone.
connmark_nftables() {
	nft -f - <<-END
		table ip aws-cni
		flush table ip aws-cni
		table ip aws-cni {
			chain nat-prerouting {
				type nat hook prerouting priority -90; policy accept;
				fib daddr type local return
				iifname "eni*" counter jump snat-mark
				counter meta mark set ct mark & 0x80
			}
			chain snat-mark {
				counter ip daddr 192.168.7.0/24 return
				counter ct mark set ct mark | 0x80
			}
		}
	END
}

again() {
	connmark_$CONNMARK
}

node() {
	sysctl -qw net.ipv4.conf.eth0.rp_filter=2 net.ipv4.neigh.eth0.proxy_delay=0
	# The second interface of the node.
	ip link add eth1 link eth0 type macvlan mode bridge
	sysctl -qw net.ipv4.conf.eth1.arp_ignore=1
	ip link set eth1 up
	ip address add 192.168.7.2$N/24 dev eth1 noprefixroute
	ip route add 192.168.7.1 dev eth1 scope link table 2
	ip route add default via 192.168.7.1 dev eth1 table 2
	ip rule add from 192.168.7.2$N lookup 2 priority 32765
	ip rule add fwmark 0x80/0x80 lookup main priority 1024
	$IPTABLES-restore --noflush <<-END
		*filter
		-I FORWARD -d 169.254.172.0/22 -m conntrack --ctstate NEW -m comment --comment "Block Node Local Pod access via IPv4" -j REJECT
		COMMIT
		*mangle
		-A PREROUTING -i eth0 -m comment --comment "AWS, primary ENI" -m addrtype --dst-type LOCAL --limit-iface-in -j CONNMARK --set-xmark 0x80/0x80
		-A PREROUTING -i eni+ -m comment --comment "AWS, primary ENI" -j CONNMARK --restore-mark --nfmask 0x80 --ctmask 0x80
		-A PREROUTING -i vlan+ -m comment --comment "AWS, primary ENI" -j CONNMARK --restore-mark --nfmask 0x80 --ctmask 0x80
		COMMIT
		*nat
		:AWS-SNAT-CHAIN-0 - [0:0]
		-A POSTROUTING -m comment --comment "AWS SNAT CHAIN" -j AWS-SNAT-CHAIN-0
		-A AWS-SNAT-CHAIN-0 -d 192.168.7.0/24 -m comment --comment "AWS SNAT CHAIN" -j RETURN
		-A AWS-SNAT-CHAIN-0 ! -o vlan+ -m comment --comment "AWS, SNAT" -m addrtype ! --dst-type LOCAL -j SNAT --to-source $ADDRESS --random-fully
		COMMIT
	END
	again
}

# The pod "here" has an address of the second interface. In a VPC, the network itself knows
# which interface an address is at; here the node says so by ARP.
pod() {
	ip route add $2 dev $1 scope link
	ip rule add to $2 lookup main priority 512
	[ $1 != enihere ] || ip rule add from $2 lookup 2 priority 1536
	ip neigh add proxy $2 dev eth0
}
