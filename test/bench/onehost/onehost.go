// Package onehost measures what packets of pods cost on a host, in network namespaces that it
// makes itself: pods send UDP packets by the host to a server, from one thread. The kernel does all
// that happens to a packet before the next one is sent.
//
// What is counted is the time of the processor. Other work on the machine makes rounds slow all
// the same: the quietest tenth says most.
package onehost

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"slices"
	"syscall"
	"time"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// inside is in the environment of the process that has namespaces of its own.
const inside = "EGRESSIP_BENCH_INSIDE"

// Links is how many pods the host has. Their addresses are 10.244.1.2 and following, their
// links v-2 and following. The first four send: see Pods.
const Links = 110

// settles is the time that the kernel gets to free what was changed.
const settles = 50 * time.Millisecond

// Pods returns the pods that send, in the order of their addresses: two at a bridge and two that
// are routed to.
func Pods() []string {
	return []string{"bridged-locked", "routed-locked", "bridged-plain", "routed-plain"}
}

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

// Address returns the address of a pod, by its number from 0 on.
func Address(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 244, 1, byte(2 + i)}) }

// Locked reports whether a pod has an egress IP: half of them do, and two of those that send.
func Locked(i int) bool { return i < 2 || i > Links/2 }

// Main is a program that measures, with flags for the rounds of each comparison and the packets in
// one. It runs itself once more, with namespaces of its own, and there calls measure, once the host
// and its pods are up. They end with the program.
func Main(name string, rounds int, measure func(ctx context.Context, rounds, packets int) error) {
	flag.IntVar(&rounds, "rounds", rounds, "rounds of each, with what is measured and without")
	packets := flag.Int("packets", 5000, "packets in a round")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	defer stop()
	if err := run(ctx, func() error { return measure(ctx, rounds, *packets) }); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		os.Exit(1) //nolint:gocritic // the process ends
	}
}

func run(ctx context.Context, measure func() error) error {
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
	return measure()
}

// Compare has a pod send with something in place and without it, in turn, and prints what a packet
// costs.
func Compare(pod string, rounds, packets int, put, remove func() error) error {
	var with, without []float64
	round := func(change func() error) (float64, error) {
		if err := change(); err != nil {
			return 0, err
		}
		time.Sleep(settles)
		return send(pod, packets)
	}
	for range rounds {
		a, err := round(put)
		if err != nil {
			return err
		}
		b, err := round(remove)
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
