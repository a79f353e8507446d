# What Felix of Calico has on a node with its iptables data plane. MODE is its
# ChainInsertMode, insert or append. Bits of marks: 0x10000 accept, 0x20000 pass,
# 0x80000 scratch 0, 0x100000 scratch 1; of 0xffff0000.

# jumps writes the jumps from the kernel's chains, which the mode puts first or last, and the
# two rules that accept what was forwarded, which are at the end of FORWARD in both modes.
# With "again" they are taken away before, in the same transaction. Felix does so where they
# are not in their places; here they are put there with each pass.
jumps() {
	for table in "raw PREROUTING OUTPUT" "mangle PREROUTING POSTROUTING" "nat PREROUTING OUTPUT POSTROUTING" "filter INPUT OUTPUT FORWARD"; do
		set -- "$1" $table
		echo "*$2"
		again=$1
		shift 2
		for chain; do
			[ "$again" != again ] || echo "-D $chain -j cali-$chain"
			if [ $MODE = insert ]; then echo "-I $chain 1 -j cali-$chain"; else echo "-A $chain -j cali-$chain"; fi
			[ $chain = FORWARD ] || continue
			for rule in "-m mark --mark 0x10000/0x10000 -j ACCEPT" "-j MARK --set-xmark 0x10000/0x10000"; do
				[ "$again" != again ] || echo "-D FORWARD $rule"
				echo "-A FORWARD $rule"
			done
		done
		echo COMMIT
		set -- "$again"
	done
}

again() {
	jumps again | $IPTABLES-restore --noflush
}

node() {
	for set in all masq; do
		ipset create cali40$set-ipam-pools hash:net
		ipset add cali40$set-ipam-pools 10.244.0.0/16
	done
	ip route add blackhole 10.244.$N.0/26 proto 80
	$IPTABLES-restore --noflush <<-END
		*raw
		:cali-PREROUTING - [0:0]
		:cali-OUTPUT - [0:0]
		:cali-rpf-skip - [0:0]
		:cali-from-host-endpoint - [0:0]
		:cali-to-host-endpoint - [0:0]
		-A cali-PREROUTING -j MARK --set-xmark 0x0/0x1b0000
		-A cali-PREROUTING -i cali+ -j MARK --set-xmark 0x80000/0x80000
		-A cali-PREROUTING -m mark --mark 0x80000/0x80000 -j cali-rpf-skip
		-A cali-PREROUTING -m mark --mark 0x80000/0x80000 -m rpfilter --validmark --invert -j DROP
		-A cali-PREROUTING -m mark --mark 0x0/0x80000 -j cali-from-host-endpoint
		-A cali-PREROUTING -m mark --mark 0x10000/0x10000 -j ACCEPT
		-A cali-OUTPUT -j MARK --set-xmark 0x0/0x1b0000
		-A cali-OUTPUT -j cali-to-host-endpoint
		-A cali-OUTPUT -m mark --mark 0x10000/0x10000 -j ACCEPT
		COMMIT
		*mangle
		:cali-PREROUTING - [0:0]
		:cali-POSTROUTING - [0:0]
		:cali-from-host-endpoint - [0:0]
		:cali-to-host-endpoint - [0:0]
		-A cali-PREROUTING -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
		-A cali-PREROUTING -m mark --mark 0x10000/0x10000 -j ACCEPT
		-A cali-PREROUTING -j cali-from-host-endpoint
		-A cali-PREROUTING -m mark --mark 0x10000/0x10000 -j ACCEPT
		-A cali-POSTROUTING -m mark --mark 0x10000/0x10000 -j RETURN
		-A cali-POSTROUTING -j MARK --set-xmark 0x0/0x1b0000
		-A cali-POSTROUTING -m conntrack --ctstate DNAT -j cali-to-host-endpoint
		-A cali-POSTROUTING -m mark --mark 0x10000/0x10000 -j RETURN
		COMMIT
		*nat
		:cali-PREROUTING - [0:0]
		:cali-OUTPUT - [0:0]
		:cali-POSTROUTING - [0:0]
		:cali-fip-dnat - [0:0]
		:cali-fip-snat - [0:0]
		:cali-nat-outgoing - [0:0]
		-A cali-PREROUTING -j cali-fip-dnat
		-A cali-OUTPUT -j cali-fip-dnat
		-A cali-POSTROUTING -j cali-fip-snat
		-A cali-POSTROUTING -j cali-nat-outgoing
		-A cali-nat-outgoing -m set --match-set cali40masq-ipam-pools src -m set ! --match-set cali40all-ipam-pools dst -j MASQUERADE --random-fully
		COMMIT
		*filter
		:cali-INPUT - [0:0]
		:cali-OUTPUT - [0:0]
		:cali-FORWARD - [0:0]
		:cali-wl-to-host - [0:0]
		:cali-from-wl-dispatch - [0:0]
		:cali-to-wl-dispatch - [0:0]
		:cali-from-host-endpoint - [0:0]
		:cali-to-host-endpoint - [0:0]
		:cali-from-hep-forward - [0:0]
		:cali-to-hep-forward - [0:0]
		:cali-cidr-block - [0:0]
		:cali-pro-kns - [0:0]
		-A cali-INPUT -i cali+ -g cali-wl-to-host
		-A cali-INPUT -m mark --mark 0x10000/0x10000 -j ACCEPT
		-A cali-INPUT -j MARK --set-xmark 0x0/0x1b0000
		-A cali-INPUT -j cali-from-host-endpoint
		-A cali-INPUT -m mark --mark 0x10000/0x10000 -j ACCEPT
		-A cali-wl-to-host -j cali-from-wl-dispatch
		-A cali-wl-to-host -j ACCEPT
		-A cali-OUTPUT -m mark --mark 0x10000/0x10000 -j ACCEPT
		-A cali-OUTPUT -o cali+ -j RETURN
		-A cali-OUTPUT -j MARK --set-xmark 0x0/0x1b0000
		-A cali-OUTPUT -m conntrack ! --ctstate DNAT -j cali-to-host-endpoint
		-A cali-OUTPUT -m mark --mark 0x10000/0x10000 -j ACCEPT
		-A cali-FORWARD -j MARK --set-xmark 0x0/0x1a0000
		-A cali-FORWARD -m mark --mark 0x0/0x10000 -j cali-from-hep-forward
		-A cali-FORWARD -i cali+ -j cali-from-wl-dispatch
		-A cali-FORWARD -o cali+ -j cali-to-wl-dispatch
		-A cali-FORWARD -j cali-to-hep-forward
		-A cali-FORWARD -j cali-cidr-block
		-A cali-from-wl-dispatch -j DROP
		-A cali-to-wl-dispatch -j DROP
		-A cali-pro-kns -j MARK --set-xmark 0x10000/0x10000
		-A cali-pro-kns -m mark --mark 0x10000/0x10000 -j RETURN
		COMMIT
	END
	jumps | $IPTABLES-restore --noflush
}

pod() {
	ip route add $2 dev $1 scope link
	sysctl -qw net.ipv4.conf.$1.route_localnet=1 net.ipv4.conf.$1.proxy_arp=1 net.ipv4.conf.$1.forwarding=1 net.ipv4.conf.$1.rp_filter=1 net.ipv4.neigh.$1.proxy_delay=0
	$IPTABLES-restore --noflush <<-END
		*filter
		:cali-fw-$1 - [0:0]
		:cali-tw-$1 - [0:0]
		-A cali-fw-$1 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
		-A cali-fw-$1 -m conntrack --ctstate INVALID -j DROP
		-A cali-fw-$1 -j MARK --set-xmark 0x0/0x30000
		-A cali-fw-$1 -p udp -m multiport --dports 4789 -j DROP
		-A cali-fw-$1 -p 4 -j DROP
		-A cali-fw-$1 -j cali-pro-kns
		-A cali-fw-$1 -m mark --mark 0x10000/0x10000 -j RETURN
		-A cali-fw-$1 -j DROP
		-A cali-tw-$1 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
		-A cali-tw-$1 -m conntrack --ctstate INVALID -j DROP
		-A cali-tw-$1 -j MARK --set-xmark 0x0/0x30000
		-A cali-tw-$1 -j cali-pro-kns
		-A cali-tw-$1 -m mark --mark 0x10000/0x10000 -j RETURN
		-A cali-tw-$1 -j DROP
		-I cali-from-wl-dispatch 1 -i $1 -g cali-fw-$1
		-I cali-to-wl-dispatch 1 -o $1 -g cali-tw-$1
		COMMIT
	END
}
