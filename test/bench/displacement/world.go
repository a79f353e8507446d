package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"runtime"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane"
)

// world is a host, which is this process's own network namespace, and two
// neighbours of it:
//
//	pod -------- host -------- server
//	10.244.1.2   192.168.7.11  192.168.7.72
//	             has 192.168.7.201
type world struct {
	backend     dataplane.Backend
	pod, server *place
}

const (
	podIP    = "10.244.1.2"
	hostIP   = "192.168.7.11"
	egressIP = "192.168.7.201"
	serverIP = "192.168.7.72"
	podsNet  = "10.244.0.0/16"
	netID    = 7
	uplink   = "eth0"
)

// state is what the dataplane has to do; way is the pod's.
func state(way dataplane.PodKind) dataplane.State {
	s := dataplane.State{
		HostIP:  netip.MustParseAddr(hostIP),
		Hosts:   []netip.Addr{netip.MustParseAddr(hostIP)},
		Inside:  []netip.Prefix{netip.MustParsePrefix(podsNet), netip.MustParsePrefix("10.96.0.0/16")},
		Subnets: []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24")},
		Strict:  true,
		Hosted:  []dataplane.Hosted{{IP: netip.MustParseAddr(egressIP), NetID: netID}},
		Pods:    []dataplane.Pod{{IP: netip.MustParseAddr(podIP), Kind: way}},
	}
	if way == dataplane.Local {
		s.Pods[0].EgressIP, s.Pods[0].NetID = netip.MustParseAddr(egressIP), netID
	}
	return s
}

// makeRoom keeps this process's mounts from the machine, and gives iptables a lock
// of its own.
func makeRoom() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("tmpfs", "/run", "tmpfs", 0, ""); err != nil {
		return fmt.Errorf("mount /run: %w", err)
	}
	return loopbackUp()
}

// newWorld makes all but our own part. Others' rules are in one backend.
func newWorld(ctx context.Context, b dataplane.Backend, rules int) (w *world, err error) {
	w = &world{backend: b}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.close())
		}
	}()
	if w.pod, err = newPlace("pod"); err != nil {
		return w, err
	}
	if w.server, err = newPlace("server"); err != nil {
		return w, err
	}
	// A connection of one packet is kept for 5 s only, so that no port is used
	// again while it is known.
	err = errors.Join(
		connect(w.pod, "cni0"), connect(w.server, uplink),
		sh(ctx, `ip address add 10.244.1.1/24 dev cni0; ip address add `+hostIP+`/24 dev `+uplink+`
			sysctl -qw net.ipv4.ip_forward=1 net.netfilter.nf_conntrack_udp_timeout=5`),
		w.pod.sh(ctx, "ip address add "+podIP+"/24 dev eth0; ip route add default via 10.244.1.1"),
		w.server.sh(ctx, "ip address add "+serverIP+"/24 dev eth0"),
	)
	if err != nil {
		return w, err
	}
	var nat strings.Builder
	fmt.Fprintf(&nat, "*nat\n:KUBE-SERVICES - [0:0]\n-A PREROUTING -j KUBE-SERVICES\n-A POSTROUTING -s %[1]s ! -d %[1]s -j MASQUERADE\n", podsNet)
	for i := range rules {
		fmt.Fprintf(&nat, "-A KUBE-SERVICES -d 10.96.%d.%d/32 -p tcp -m tcp --dport 80 -j RETURN\n", i/250, i%250)
	}
	nat.WriteString("COMMIT\n")
	if err := w.restore(ctx, nat.String()); err != nil {
		return w, err
	}
	for _, k := range allKinds() {
		if err := w.restore(ctx, fmt.Sprintf("*%s\n:%s - [0:0]\n-A %s %s\nCOMMIT\n", k.table, k.foreign, k.foreign, k.rule)); err != nil {
			return w, err
		}
	}
	return w, nil
}

func (w *world) close() error {
	var errs []error
	for _, p := range []*place{w.pod, w.server} {
		if p != nil {
			errs = append(errs, p.ns.Close())
		}
	}
	return errors.Join(errs...)
}

// restore hands a script to iptables-restore, as other software would.
func (w *world) restore(ctx context.Context, script string) error {
	return command(ctx, script, fmt.Sprintf("iptables-%s-restore", w.backend), "--noflush", "--wait", "5")
}

// saved gives what the host's iptables has, in both backends: rules and chains
// without counters and comments.
func saved(ctx context.Context) (string, error) {
	var rules strings.Builder
	for _, b := range []dataplane.Backend{dataplane.NFT, dataplane.Legacy} {
		out, err := exec.CommandContext(ctx, fmt.Sprintf("iptables-%s-save", b)).Output()
		if err != nil {
			return "", fmt.Errorf("iptables-%s-save: %w", b, err)
		}
		table := ""
		for line := range strings.Lines(string(out)) {
			switch name, rest, _ := strings.Cut(strings.TrimSpace(line), " "); {
			case strings.HasPrefix(name, "*"):
				table = name[1:]
			case strings.HasPrefix(name, ":") && strings.HasPrefix(rest, "- "), name == "-A":
				fmt.Fprintln(&rules, b, table, name, strings.TrimSuffix(rest, " [0:0]"))
			}
		}
	}
	return rules.String(), nil
}

// place is a network namespace other than the host's.
type place struct {
	name string
	ns   netns.NsHandle
}

func newPlace(name string) (*place, error) {
	p := &place{name: name}
	err := onThread(func() (err error) {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		if err := loopbackUp(); err != nil {
			return err
		}
		p.ns, err = netns.Get()
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("make network namespace %s: %w", name, err)
	}
	return p, nil
}

// onThread calls f on a thread of its own, which ends with it.
func onThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never back: the thread is no good for others
		done <- f()
	}()
	return <-done
}

// hasten has the calling thread come before others, so that what measures is not
// late where the processors are busy.
func hasten() error {
	const nice = -10
	if err := unix.Setpriority(unix.PRIO_PROCESS, 0, nice); err != nil { // of the thread alone
		return fmt.Errorf("set the thread's priority: %w", err)
	}
	return nil
}

// do calls f inside. A goroutine that f starts is outside.
func (p *place) do(f func() error) error {
	err := onThread(func() error {
		if err := netns.Set(p.ns); err != nil {
			return err
		}
		return f()
	})
	if err != nil {
		return fmt.Errorf("inside %s: %w", p.name, err)
	}
	return nil
}

func (p *place) sh(ctx context.Context, script string) error {
	return p.do(func() error { return sh(ctx, script) })
}

// connect joins eth0 of a place to a device of the host's.
func connect(p *place, device string) error {
	veth := &netlink.Veth{LinkAttrs: netlink.NewLinkAttrs(), PeerName: "eth0", PeerNamespace: netlink.NsFd(p.ns)}
	veth.Name = device
	if err := netlink.LinkAdd(veth); err != nil {
		return fmt.Errorf("connect %s to %s: %w", p.name, device, err)
	}
	return errors.Join(linkUp(device), p.do(func() error { return linkUp("eth0") }))
}

func loopbackUp() error { return linkUp("lo") }

func linkUp(name string) error {
	link, err := netlink.LinkByName(name)
	if err == nil {
		err = netlink.LinkSetUp(link)
	}
	if err != nil {
		return fmt.Errorf("set %s up: %w", name, err)
	}
	return nil
}

func sh(ctx context.Context, script string) error { return command(ctx, "", "sh", "-ec", script) }

func command(ctx context.Context, stdin, name string, arguments ...string) error {
	cmd := exec.CommandContext(ctx, name, arguments...)
	cmd.Stdin = strings.NewReader(stdin)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, out)
	}
	return nil
}
