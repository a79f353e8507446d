# What kindnetd has on a node: masquerading in a table of nftables that it deletes and makes
# again, ten before source NAT of iptables, and pods at links whose address is their gateway.

again() {
	nft -f - <<-END
		table inet kindnet-ipmasq
		delete table inet kindnet-ipmasq
		table inet kindnet-ipmasq {
			set noMasqV4 { type ipv4_addr; flags interval; auto-merge; elements = { 10.244.0.0/16 }; }
			set noMasqV6 { type ipv6_addr; flags interval; auto-merge; }
			chain postrouting {
				type nat hook postrouting priority srcnat - 10; policy accept;
				ct state established,related accept
				fib daddr type local accept
				ip daddr @noMasqV4 accept
				ip6 daddr @noMasqV6 accept
				masquerade
			}
		}
	END
}

node() { again; }

pod() {
	ip address add $GATEWAY/32 dev $1
	ip route add $2 dev $1 scope host
}
