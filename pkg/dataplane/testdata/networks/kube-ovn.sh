# What Kube-OVN has on a node, for a subnet whose gateways are distributed: pods reach the
# outside by port ovn0 of the join network, and one route leads to the pods of all nodes. Each
# jump and each rule is put first where it is missing. Packets to translate lose all of
# their mark.
PORT=ovn0 HOST=100.64.0.$((N + 1)) PEER=100.64.0.$((4 - N)) SELF=100.64.0.1

first() {
	table=$1 chain=$2
	shift 2
	$IPTABLES -t $table -C $chain "$@" 2>/dev/null || $IPTABLES -t $table -I $chain 1 "$@"
}

again() {
	first nat PREROUTING -m comment --comment "kube-ovn prerouting rules" -j OVN-PREROUTING
	first nat POSTROUTING -m comment --comment "kube-ovn postrouting rules" -j OVN-POSTROUTING
	first mangle POSTROUTING -m comment --comment "kube-ovn postrouting rules" -j OVN-POSTROUTING
	for chain in INPUT FORWARD; do
		for set in ovn40subnets ovn40services; do
			first filter $chain -m set --match-set $set src -j ACCEPT
			first filter $chain -m set --match-set $set dst -j ACCEPT
		done
	done
	for port in 6081 4789; do first filter OUTPUT -p udp -m udp --dport $port -j MARK --set-xmark 0x0; done
	for way in -s -d; do first filter FORWARD -m comment --comment "ovn-subnet-gateway,ovn-default" $way 10.244.0.0/16; done
}

node() {
	internal
	sysctl -qw net.ipv4.conf.all.rp_filter=0
	ip address add $HOST/16 dev ovn0
	ip route add 10.244.0.0/16 via 100.64.0.1 dev ovn0
	for set in services subnets subnets-nat subnets-distributed-gw other-node subnets-nat-policy; do ipset create ovn40$set hash:net; done
	ipset add ovn40services 10.96.0.0/16
	for set in subnets subnets-nat subnets-distributed-gw; do ipset add ovn40$set 10.244.0.0/16; done
	ipset add ovn40other-node 192.168.7.1$((3 - N))
	$IPTABLES-restore --noflush <<-END
		*mangle
		:OVN-POSTROUTING - [0:0]
		-A OVN-POSTROUTING -p tcp -m set --match-set ovn40subnets src -m tcp --tcp-flags RST RST -m state --state INVALID -j DROP
		COMMIT
		*nat
		:OVN-PREROUTING - [0:0]
		:OVN-POSTROUTING - [0:0]
		:OVN-MASQUERADE - [0:0]
		:OVN-NAT-POLICY - [0:0]
		-A OVN-PREROUTING -i ovn0 -m set --match-set ovn40subnets src -m set --match-set ovn40services dst -j MARK --set-xmark 0x4000/0x4000
		-A OVN-POSTROUTING -m set --match-set ovn40services src -m set --match-set ovn40subnets dst -m mark --mark 0x4000/0x4000 -j SNAT --to-source $ADDRESS --random-fully
		-A OVN-POSTROUTING -m mark --mark 0x4000/0x4000 -j OVN-MASQUERADE
		-A OVN-POSTROUTING -m set --match-set ovn40subnets src -m set --match-set ovn40subnets dst -j OVN-MASQUERADE
		-A OVN-POSTROUTING -m mark --mark 0x80000/0x80000 -m set --match-set ovn40subnets-distributed-gw dst -j RETURN
		-A OVN-POSTROUTING -m mark --mark 0x80000/0x80000 -j OVN-MASQUERADE
		-A OVN-POSTROUTING -p tcp -m tcp --tcp-flags SYN NONE -m conntrack --ctstate NEW -j RETURN
		-A OVN-POSTROUTING -m set ! --match-set ovn40subnets src -m set ! --match-set ovn40other-node src -m set --match-set ovn40subnets-nat dst -j RETURN
		-A OVN-POSTROUTING -m set --match-set ovn40subnets-nat-policy src -m set ! --match-set ovn40subnets dst -j OVN-NAT-POLICY
		-A OVN-POSTROUTING -m mark --mark 0x90001/0x90001 -j OVN-MASQUERADE
		-A OVN-POSTROUTING -m mark --mark 0x90002/0x90002 -j RETURN
		-A OVN-POSTROUTING -m set --match-set ovn40subnets-nat src -m set ! --match-set ovn40subnets dst -j OVN-MASQUERADE
		-A OVN-MASQUERADE -j MARK --set-xmark 0x0/0xffffffff
		-A OVN-MASQUERADE -j MASQUERADE --random-fully
		COMMIT
	END
	again
}
