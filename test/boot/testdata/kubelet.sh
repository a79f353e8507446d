# What a kubelet does, as far as the network sees it: a pod starts and sends. /run/left
# gets the number of packets that left the machine by its uplink meanwhile.
sysctl -qw net.ipv4.ip_forward=1
ip netns add pod
ip link add v0 type veth peer name eth0 netns pod
ip addr add 10.244.1.1/24 dev v0
ip link set v0 up
ip -n pod addr add 10.244.1.2/24 dev eth0
ip -n pod link set eth0 up
ip -n pod neigh add 10.244.1.1 lladdr "$(cat /sys/class/net/v0/address)" dev eth0
ip -n pod route add default via 10.244.1.1
# A pod elsewhere: what is sent to it comes after all else that was sent.
ip link add other type veth peer name overlay
ip link set overlay up
ip link set other up arp off
ip route add 10.244.2.0/24 dev other

sent() { cat "/sys/class/net/$1/statistics/tx_packets"; }

before=$(sent uplink)
# One processor, so that packets stay in order.
ip netns exec pod taskset -c 0 bash -c '
	for i in 1 2 3 4 5; do echo x >/dev/udp/192.0.2.1/9 || true; done
	echo x >/dev/udp/10.244.2.9/9'
for i in $(seq 100); do
	[ "$(sent other)" -gt 0 ] && break
	sleep 0.05
done
[ "$(sent other)" -gt 0 ]
echo $(($(sent uplink) - before)) >/run/left
