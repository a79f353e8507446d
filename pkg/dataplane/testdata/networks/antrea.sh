# What Antrea has on a node in mode encap, beside kube-proxy: one port of its switch, to which
# the pods of all nodes are routed, chains that are appended and filled again with each pass, and
# one bit of marks for the host's own packets. MODE=egress: the pod at 10.244.1.3 has an Egress
# of Antrea, 192.168.7.50: the switch gives its packets the mark 1 of the bits 0xff.
PORT=antrea-gw0 HOST=10.244.$N.1 SELF=

append() {
	comment="Antrea: jump to Antrea $4 rules"
	$IPTABLES -t $1 -N $3 2>/dev/null || true
	$IPTABLES -t $1 -C $2 -m comment --comment "$comment" -j $3 2>/dev/null || $IPTABLES -t $1 -A $2 -m comment --comment "$comment" -j $3
}

again() {
	append raw PREROUTING ANTREA-PREROUTING prerouting
	append raw OUTPUT ANTREA-OUTPUT output
	append filter FORWARD ANTREA-FORWARD forwarding
	append filter INPUT ANTREA-INPUT input
	append filter OUTPUT ANTREA-OUTPUT output
	append nat POSTROUTING ANTREA-POSTROUTING postrouting
	append mangle PREROUTING ANTREA-PREROUTING prerouting
	append mangle OUTPUT ANTREA-OUTPUT output
	snat=
	[ "$MODE/$N" != egress/1 ] || snat='-A ANTREA-POSTROUTING -m comment --comment "Antrea: SNAT Pod to external packets" ! -o antrea-gw0 -m mark --mark 0x1/0xff -j SNAT --to-source 192.168.7.50'
	$IPTABLES-restore --noflush <<-END
		*raw
		:ANTREA-PREROUTING - [0:0]
		:ANTREA-OUTPUT - [0:0]
		-A ANTREA-PREROUTING -p udp -m udp --dport 6081 -m addrtype --dst-type LOCAL -j CT --notrack
		-A ANTREA-OUTPUT -p udp -m udp --dport 6081 -m addrtype --src-type LOCAL -j CT --notrack
		COMMIT
		*mangle
		:ANTREA-PREROUTING - [0:0]
		:ANTREA-OUTPUT - [0:0]
		-A ANTREA-OUTPUT -o antrea-gw0 -m comment --comment "Antrea: mark LOCAL output packets" -m addrtype --src-type LOCAL -j MARK --set-xmark 0x80000000/0x80000000
		COMMIT
		*filter
		:ANTREA-FORWARD - [0:0]
		-A ANTREA-FORWARD -i antrea-gw0 -m comment --comment "Antrea: accept packets from local Pods" -j ACCEPT
		-A ANTREA-FORWARD -o antrea-gw0 -m comment --comment "Antrea: accept packets to local Pods" -j ACCEPT
		COMMIT
		*nat
		:ANTREA-POSTROUTING - [0:0]
		$snat
		-A ANTREA-POSTROUTING -s 10.244.$N.0/24 -m comment --comment "Antrea: masquerade Pod to external packets" -m set ! --match-set ANTREA-POD-IP dst ! -o antrea-gw0 -j MASQUERADE
		-A ANTREA-POSTROUTING -o antrea-gw0 -m comment --comment "Antrea: masquerade LOCAL traffic" -m addrtype ! --src-type LOCAL --limit-iface-out -m addrtype --src-type LOCAL -j MASQUERADE --random-fully
		COMMIT
	END
}

node() {
	internal
	ip address add 10.244.$N.1/24 dev antrea-gw0
	ip route add 10.244.$((3 - N)).0/24 via 10.244.$((3 - N)).1 dev antrea-gw0 onlink
	ipset create ANTREA-POD-IP hash:net
	ipset add ANTREA-POD-IP 10.244.1.0/24
	ipset add ANTREA-POD-IP 10.244.2.0/24
	if [ "$MODE/$N" = egress/1 ]; then
		ip address add 192.168.7.50/32 dev eth0
		nft 'table ip ovs { chain marks { type filter hook prerouting priority -500; iifname antrea-gw0 ip saddr 10.244.1.3 ip daddr != { 10.244.0.0/16, 10.96.0.0/16, 192.168.7.11, 192.168.7.12 } meta mark set 1; }; }'
	fi
	again
}
