# What stands for Open vSwitch: a router in a namespace of its own, so that what pods send to
# each other does not pass the host's netfilter, but for the tunnel's own packets. internal is
# played on the host, before the script's own node; switch and pod are played in the switch.

# internal makes the host's port of the switch. It is no veth, as that of Open vSwitch is not.
internal() {
	ip link set ovs up
	ip link add $PORT link ovs address 0a:00:00:00:00:0$N type macvlan mode bridge
	ip link set $PORT mtu 1450 up
	ip link add tunnel type vxlan id 1 dstport 6081 local $ADDRESS remote 192.168.7.1$((3 - N))
	ip route del 10.244.$((3 - N)).0/24
}

# switch knows its host at address HOST and the other one at PEER, where that is not among its
# pods, and has address SELF where the host has it as a router.
switch() {
	sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.host.proxy_arp=1 net.ipv4.neigh.host.proxy_delay=0
	[ -z "$SELF" ] || ip address add $SELF/32 dev host
	ip link set tunnel up
	ip address add 172.31.0.$N/24 dev tunnel
	ip route add 10.244.$((3 - N)).0/24 via 172.31.0.$((3 - N))
	[ -z "$PEER" ] || ip route add $PEER via 172.31.0.$((3 - N))
	ip neigh replace $HOST dev host lladdr 0a:00:00:00:00:0$N
	ip route add $HOST dev host
	ip route add default via $HOST
	for filter in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 0 > $filter; done
}

pod() {
	ip route add $2 dev $1
	sysctl -qw net.ipv4.conf.$1.proxy_arp=1 net.ipv4.conf.$1.rp_filter=0 net.ipv4.neigh.$1.proxy_delay=0
}
