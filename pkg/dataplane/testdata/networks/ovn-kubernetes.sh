# What OVN-Kubernetes has on a node in its local gateway mode: pods reach the outside by
# management port ovn-k8s-mp0, and the rules are in one table of nftables. Chain
# egress-ip-connmark, which is there without an EgressIP too, gives packets without a mark all
# of their connection's.
PORT=ovn-k8s-mp0 HOST=10.244.$N.2 SELF=10.244.$N.1

again() {
	nft -f - <<-END
		table inet ovn-kubernetes
		flush table inet ovn-kubernetes
		table inet ovn-kubernetes {
			set remote-node-ips-v4 { type ipv4_addr; elements = { 192.168.7.1$((3 - N)) }; }
			map egress-ip-snat-v4 { type ipv4_addr . ifname : ipv4_addr; }
			chain ovn-kube-local-gw-masq {
				type nat hook postrouting priority 101; policy accept;
				ip saddr 169.254.0.1 masquerade
				jump ovn-kube-pod-subnet-masq
			}
			chain ovn-kube-pod-subnet-masq {
				ip saddr 10.244.$N.0/24 masquerade
			}
			chain mgmtport-snat {
				type nat hook postrouting priority srcnat; policy accept;
				oifname != "ovn-k8s-mp0" return
				meta nfproto ipv4 ip saddr 10.244.$N.2 return
				snat ip to 10.244.$N.2
			}
			chain egress-ip-snat {
				type nat hook postrouting priority srcnat; policy accept;
				snat ip to ip saddr . meta oifname map @egress-ip-snat-v4
			}
			chain egress-ip-connmark {
				type filter hook prerouting priority mangle; policy accept;
				meta mark 0 meta mark set ct mark
				meta mark 1008 ct mark set meta mark
			}
			chain egress-ip-sec-filter {
				type filter hook postrouting priority srcnat + 1; policy accept;
				ip saddr 10.244.0.0/16 meta mark 1009 drop
			}
			chain no-pmtud {
				type filter hook output priority filter; policy accept;
				ip daddr @remote-node-ips-v4 meta l4proto icmp icmp type 3 icmp code 4 drop
			}
		}
	END
	for way in -o -i; do
		$IPTABLES -C FORWARD $way ovn-k8s-mp0 -j ACCEPT 2>/dev/null || $IPTABLES -I FORWARD $way ovn-k8s-mp0 -j ACCEPT
	done
}

node() {
	internal
	sysctl -qw net.ipv4.conf.ovn-k8s-mp0.rp_filter=2
	ip address add 10.244.$N.2/24 dev ovn-k8s-mp0
	ip route add 10.244.0.0/16 via 10.244.$N.1 dev ovn-k8s-mp0
	ip route add 10.96.0.0/16 via 10.244.$N.1 dev ovn-k8s-mp0 table 7
	ip rule add fwmark 0x1745ec lookup 7 priority 30
	ip rule add fwmark 0x3f0 lookup main priority 5999
	again
}
