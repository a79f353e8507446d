# What Felix of Calico has on a node with its nftables data plane: one table, at the
# priorities of iptables, but for source NAT, which is ten behind. Its chains are filled
# again in one transaction.

again() {
	nft -f - <<-END
		table ip calico
		flush table ip calico
		table ip calico {
			set cali40all-ipam-pools { type ipv4_addr; flags interval; elements = { 10.244.0.0/16 }; }
			set cali40masq-ipam-pools { type ipv4_addr; flags interval; elements = { 10.244.0.0/16 }; }
			map filter-cali-from-wl-dispatch { type ifname : verdict; }
			map filter-cali-to-wl-dispatch { type ifname : verdict; }

			chain raw-PREROUTING {
				type filter hook prerouting priority raw; policy accept;
				jump raw-cali-PREROUTING
			}
			chain raw-cali-PREROUTING {
				meta mark set meta mark & 0xffe4ffff
				iifname "cali*" meta mark set meta mark | 0x80000
				meta mark & 0x80000 == 0x80000 fib saddr . mark . iif oif 0 drop
				meta mark & 0x10000 == 0x10000 accept
			}
			chain mangle-PREROUTING {
				type filter hook prerouting priority mangle; policy accept;
				ct state established,related accept
				meta mark & 0x10000 == 0x10000 accept
			}
			chain mangle-POSTROUTING {
				type filter hook postrouting priority mangle; policy accept;
				meta mark & 0x10000 == 0x10000 return
				meta mark set meta mark & 0xffe4ffff
			}
			chain nat-PREROUTING { type nat hook prerouting priority dstnat; policy accept; }
			chain nat-POSTROUTING {
				type nat hook postrouting priority srcnat + 10; policy accept;
				jump nat-cali-nat-outgoing
			}
			chain nat-cali-nat-outgoing {
				ip saddr @cali40masq-ipam-pools ip daddr != @cali40all-ipam-pools masquerade fully-random
			}
			chain filter-INPUT {
				type filter hook input priority filter; policy accept;
				iifname "cali*" goto filter-cali-wl-to-host
				meta mark & 0x10000 == 0x10000 accept
				meta mark set meta mark & 0xffe4ffff
			}
			chain filter-cali-wl-to-host {
				jump filter-cali-from-wl-dispatch
				accept
			}
			chain filter-FORWARD {
				type filter hook forward priority filter; policy accept;
				jump filter-cali-FORWARD
				meta mark & 0x10000 == 0x10000 accept
				meta mark set meta mark | 0x10000
			}
			chain filter-cali-FORWARD {
				meta mark set meta mark & 0xffe5ffff
				iifname "cali*" jump filter-cali-from-wl-dispatch
				oifname "cali*" jump filter-cali-to-wl-dispatch
			}
			chain filter-cali-from-wl-dispatch {
				iifname vmap @filter-cali-from-wl-dispatch
				drop
			}
			chain filter-cali-to-wl-dispatch {
				oifname vmap @filter-cali-to-wl-dispatch
				drop
			}
			chain filter-cali-wl {
				ct state established,related accept
				ct state invalid drop
				meta mark set meta mark | 0x10000
			}
		}
	END
}

node() {
	ip route add blackhole 10.244.$N.0/26 proto 80
	again
}

pod() {
	ip route add $2 dev $1 scope link
	sysctl -qw net.ipv4.conf.$1.route_localnet=1 net.ipv4.conf.$1.proxy_arp=1 net.ipv4.conf.$1.forwarding=1 net.ipv4.conf.$1.rp_filter=1 net.ipv4.neigh.$1.proxy_delay=0
	nft add element ip calico filter-cali-from-wl-dispatch "{ $1 : goto filter-cali-wl }"
	nft add element ip calico filter-cali-to-wl-dispatch "{ $1 : goto filter-cali-wl }"
}
