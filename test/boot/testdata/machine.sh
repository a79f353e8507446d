# Becomes the systemd of a machine that has its own files but for /usr, its own network
# and its own units alone. Runs as the first process of its process namespace.
#
#   root     directory with the machine's files
#   group    control group in which all of it stays, in a hierarchy of systemd's
#   console  file that gets what systemd says
#   fault    "no iptables" for a machine whose iptables cannot be run
root=$1 group=$2 console=$3 fault=$4

if [ -z "$INSIDE" ]; then
	echo 0 >"$group/cgroup.procs"
	INSIDE=yes exec unshare --cgroup sh -ec "$(cat "$0")" "$0" "$@"
fi

mount --make-rprivate /
mount --bind "$root" "$root"
mkdir -p "$root/proc" "$root/sys" "$root/dev" "$root/run" "$root/tmp" "$root/usr"
mount --rbind /usr "$root/usr"
for d in bin sbin lib lib64; do
	if [ -L "/$d" ]; then
		[ -L "$root/$d" ] || cp -P "/$d" "$root/$d"
	elif [ -d "/$d" ]; then
		mkdir -p "$root/$d"
		mount --rbind "/$d" "$root/$d"
	fi
done
if [ "$fault" = "no iptables" ]; then
	for f in iptables-nft iptables-legacy; do
		program=$(readlink -f "/usr/sbin/$f") && mount --bind "$root/var/empty/none" "$root$program"
	done
fi

# Of the settings in /proc/sys, those of the network are the machine's own.
mount -t proc proc "$root/proc"
mount --bind "$root/proc/sys" "$root/proc/sys"
mount --bind "$root/proc/sys/net" "$root/proc/sys/net"
mount -o remount,bind,ro "$root/proc/sys"
mount -t sysfs sysfs "$root/sys"
mount -t bpf bpf "$root/sys/fs/bpf"
mount -t tmpfs tmpfs "$root/run"
mount -t tmpfs tmpfs "$root/tmp"
mount -t tmpfs tmpfs "$root/dev"
for d in null zero full random urandom tty; do
	touch "$root/dev/$d"
	mount --bind "/dev/$d" "$root/dev/$d"
done
touch "$root/dev/console"
mount --bind "$console" "$root/dev/console"
if [ "$(stat -f -c %T "$group")" = cgroup2fs ]; then
	mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
else
	mount -t tmpfs tmpfs "$root/sys/fs/cgroup"
	mkdir "$root/sys/fs/cgroup/systemd"
	mount -t cgroup -o none,name=systemd cgroup "$root/sys/fs/cgroup/systemd"
fi

ip link set lo up
sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1
ip link add uplink type veth peer name lan
ip link set lan up
ip link set uplink arp off
ip addr add 192.168.7.11/24 dev uplink
ip link set uplink up
ip route add default dev uplink

exec env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin SYSTEMD_UNIT_PATH=/etc/systemd/system SYSTEMD_GENERATOR_PATH=/etc/generators \
	chroot "$root" /lib/systemd/systemd --unit=node.target --log-target=console --show-status=no
