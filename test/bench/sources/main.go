// Command sources measures what it costs a packet that sources are checked.
//
// Pods send UDP packets by a host to a server, each in a network namespace, from one
// thread: the kernel does all that happens to a packet before the next one is sent. The
// host has 110 links of pods, half of them of pods with egress IPs. It has the tables of
// nftables that check sources (A), or not (B), in turn, and nothing else of ours.
//
// What is counted is the time of the processor. Other work on the machine makes rounds slow
// all the same: the quietest tenth says most.
//
// It also measures what a pass of the agent takes: to read which links lead to the pods,
// to make the tables, and to add one pod.
//
//	go run ./test/bench/sources [-rounds 100] [-packets 5000]
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"slices"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/nftables"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/podlink"
)

// inside is in the environment of the process that has namespaces of its own.
const inside = "EGRESSIP_BENCH_INSIDE"

// Of the pods that send, those before plain have egress IPs, and so has half of the rest.
const (
	links = 110
	plain = 2
)

// settles is the time that the kernel gets to free what was changed.
const settles = 50 * time.Millisecond

const world = `mount --make-rprivate /; mount -t tmpfs tmpfs /run; ip link set lo up
for ns in server bridged-locked routed-locked bridged-plain routed-plain; do ip netns add $ns; done
sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0
ip link add up0 type veth peer name eth0 netns server; ip link set up0 up; ip address add 192.168.7.11/24 dev up0
ip -n server link set eth0 up; ip -n server address add 192.168.7.72/24 dev eth0
ip link add cni0 type bridge; ip link set cni0 up; ip address add 10.244.1.1/24 dev cni0
i=2
for pod in bridged-locked routed-locked bridged-plain routed-plain; do
	ip link add v-$i type veth peer name eth0 netns $pod; ip link set v-$i up
	ip -n $pod link set eth0 up; ip -n $pod address add 10.244.1.$i/32 dev eth0
	ip -n $pod route add 10.244.1.1 dev eth0; ip -n $pod route add default via 10.244.1.1
	case $pod in
	bridged-*) ip link set v-$i master cni0 ;;
	routed-*) ip address add 10.244.1.1/32 dev v-$i; ip route add 10.244.1.$i dev v-$i ;;
	esac
	i=$((i + 1))
done
ip netns add others
while [ $i -lt 112 ]; do
	ip link add v-$i type veth peer name eth$i netns others; ip link set v-$i master cni0 up; ip -n others address add 10.244.1.$i/32 dev eth$i
	i=$((i + 1))
done
nft 'add table ip nat; add chain ip nat post { type nat hook postrouting priority 100; }; add rule ip nat post ip saddr 10.244.0.0/16 oifname up0 masquerade'
ip netns exec server nft 'add table ip t; add chain ip t pre { type filter hook prerouting priority -400; policy drop; }'
ip neigh replace 192.168.7.72 lladdr $(ip -n server -o link show eth0 | sed 's/.*ether \([^ ]*\).*/\1/') dev up0`

func main() {
	rounds := flag.Int("rounds", 100, "rounds of each, with the tables and without")
	packets := flag.Int("packets", 5000, "packets in a round")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	defer stop()
	if err := run(ctx, *rounds, *packets); err != nil {
		fmt.Fprintln(os.Stderr, "sources:", err)
		os.Exit(1) //nolint:gocritic // the process ends
	}
}

func run(ctx context.Context, rounds, packets int) error {
	if os.Getenv(inside) == "" {
		cmd := exec.CommandContext(ctx, "/proc/self/exe", os.Args[1:]...)
		cmd.Env = append(os.Environ(), inside+"=1")
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS, Pdeathsig: unix.SIGKILL}
		runtime.LockOSThread() // the child dies with the thread that started it
		return cmd.Run()
	}
	if out, err := exec.CommandContext(ctx, "sh", "-ec", world).CombinedOutput(); err != nil {
		return fmt.Errorf("make the host and its neighbours: %w\n%s", err, out)
	}
	d, err := nftables.Open(true)
	if err != nil {
		return err
	}
	want, err := checked()
	if err != nil {
		return errors.Join(err, d.Close())
	}
	if err := passes(d, want, rounds); err != nil {
		return errors.Join(err, d.Close())
	}
	for _, pod := range []string{"bridged-locked", "bridged-plain", "routed-locked", "routed-plain"} {
		if err := compare(d, want, pod, rounds, packets); err != nil {
			return errors.Join(err, d.Close())
		}
	}
	return d.Close()
}

// checked are the links that the tables have.
func checked() (nftables.Links, error) {
	l := nftables.Links{Sources: map[int][]netip.Addr{}}
	for i := range links {
		ip := netip.AddrFrom4([4]byte{10, 244, 1, byte(2 + i)})
		link, err := net.InterfaceByName(fmt.Sprintf("v-%d", 2+i))
		if err != nil {
			return l, err
		}
		l.Pods = append(l.Pods, link.Index)
		if i < plain || i > links/2 {
			l.Sources[link.Index], l.Guarded = []netip.Addr{ip}, append(l.Guarded, ip)
		}
	}
	for _, name := range []string{"lo", "up0", "cni0"} {
		link, err := net.InterfaceByName(name)
		if err != nil {
			return l, err
		}
		l.Others = append(l.Others, link.Index)
	}
	return l, nil
}

// passes measures what a pass of the agent takes.
func passes(d *nftables.Driver, want nftables.Links, rounds int) error {
	nl, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer nl.Close()
	var pods []netip.Addr
	for i := range links {
		pods = append(pods, netip.AddrFrom4([4]byte{10, 244, 1, byte(2 + i)}))
	}
	less := want
	less.Guarded = want.Guarded[1:]
	took := map[string][]time.Duration{}
	for range rounds {
		for _, step := range []struct {
			name string
			do   func() error
		}{
			{"read the links of 110 pods", func() error { _, err := podlink.Read(nl, pods); return err }},
			{"make the tables", func() error { return d.PutLinks(less, 0) }},
			{"add a pod", func() error { return d.PutLinks(want, 0) }},
			{"find that nothing has changed", func() error {
				content, err := d.ObserveLinks()
				if err == nil && !content.Is(want) {
					err = errors.New("the tables are not as they were put")
				}
				return err
			}},
			{"delete the tables", func() error { _, err := d.RemoveLinks(); return err }},
		} {
			began := time.Now()
			if err := step.do(); err != nil {
				return fmt.Errorf("%s: %w", step.name, err)
			}
			took[step.name] = append(took[step.name], time.Since(began))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(took)) {
		slices.Sort(took[name])
		fmt.Printf("%s: quietest tenth %v, median %v\n", name, took[name][rounds/10], took[name][rounds/2])
	}
	return nil
}

func compare(d *nftables.Driver, want nftables.Links, pod string, rounds, packets int) error {
	var with, without []float64
	for range rounds {
		if err := d.PutLinks(want, 0); err != nil {
			return err
		}
		time.Sleep(settles)
		a, err := send(pod, packets)
		if err != nil {
			return err
		}
		if _, err := d.RemoveLinks(); err != nil {
			return err
		}
		time.Sleep(settles)
		b, err := send(pod, packets)
		if err != nil {
			return err
		}
		with, without = append(with, a), append(without, b)
	}
	fmt.Printf("%s, ns a packet in each round\n  with    %.0f\n  without %.0f\n", pod, with, without)
	var ratios []float64
	for i := range rounds {
		ratios = append(ratios, with[i]/without[i])
	}
	slices.Sort(ratios)
	slices.Sort(with)
	slices.Sort(without)
	for _, part := range []struct {
		name string
		at   int
	}{{"quietest tenth", rounds / 10}, {"median", rounds / 2}} {
		a, b := with[part.at], without[part.at]
		fmt.Printf("%s, %s: with %.0f ns, without %.0f ns, %+.0f ns, ratio %.3f\n", pod, part.name, a, b, a-b, a/b)
	}
	fmt.Printf("%s, ratio of one round to the next, median: %.3f\n", pod, ratios[rounds/2])
	return nil
}

// send sends packets from a pod, and returns the nanoseconds that one takes.
func send(pod string, packets int) (float64, error) {
	type result struct {
		ns  float64
		err error
	}
	done := make(chan result)
	go func() {
		runtime.LockOSThread() // and never back: the thread is the pod's
		ns, err := sendHere(pod, packets)
		done <- result{ns, err}
	}()
	r := <-done
	return r.ns, r.err
}

func sendHere(pod string, packets int) (_ float64, err error) {
	there, err := netns.GetFromName(pod)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, there.Close()) }()
	if err := netns.Set(there); err != nil {
		return 0, err
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, unix.Close(fd)) }()
	if err := unix.Connect(fd, &unix.SockaddrInet4{Addr: [4]byte{192, 168, 7, 72}, Port: 9}); err != nil {
		return 0, err
	}
	payload := []byte("x")
	for range 1000 { // neighbours and the connection become known
		if _, err := unix.Write(fd, payload); err != nil {
			return 0, err
		}
	}
	began, err := cpuTime()
	if err != nil {
		return 0, err
	}
	for range packets {
		if _, err := unix.Write(fd, payload); err != nil {
			return 0, err
		}
	}
	ended, err := cpuTime()
	return float64(ended-began) / float64(packets), err
}

// cpuTime is the time that this thread has had a processor, in nanoseconds.
func cpuTime() (int64, error) {
	var t unix.Timespec
	err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t)
	return t.Nano(), err
}
