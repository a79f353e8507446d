package kernel

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
	"github.com/egressip-operator/egressip-operator/test/conformance"
)

// node is this machine as the viewer of a scenario: one interface with the
// node's address, cabled to another machine, network namespace lan.
type node struct {
	t      *testing.T
	device string
	brain  *conformance.Brain
	viewer string
	dp     *dataplane.Dataplane
	// wake asks the agent's loop for a pass.
	wake chan struct{}
	// stop ends the agent, as a crash would: it cleans nothing up.
	stop func()

	mu    sync.Mutex
	state dataplane.State
}

const (
	hostIP    = "192.168.7.10"
	lanIP     = "192.168.7.1"
	passEvery = time.Second // as the agent
)

func run(t *testing.T, command string) string {
	t.Helper()
	out, err := exec.Command("sh", "-ec", command).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", command, err, out)
	}
	return string(out)
}

func newNode(t *testing.T, viewer, device string) *node {
	t.Helper()
	run(t, `ip netns add lan
		ip link set lo up; ip link add `+device+` type veth peer name eth0 netns lan; ip link set `+device+` up
		ip address add `+hostIP+`/24 dev `+device+`
		ip -netns lan link set lo up; ip -netns lan link set eth0 up; ip -netns lan address add `+lanIP+`/24 dev eth0`)
	t.Cleanup(func() { run(t, "ip link del "+device+"; ip netns del lan") })
	return &node{t: t, device: device, brain: conformance.NewBrain(""), viewer: viewer, wake: make(chan struct{}, 1)}
}

// present makes what is there before the agent starts: addresses on the
// interface, and packet filter rules.
func (n *node) present(addresses []conformance.InterfaceAddress, rules []string) {
	for _, a := range addresses {
		run(n.t, fmt.Sprintf("ip address add %s/24 dev %s label %s", a.IP, n.device, a.Label))
	}
	for _, rule := range rules {
		run(n.t, "iptables "+rule)
	}
}

// start begins what the agent does: a pass at once, on each sign of drift, and
// every second.
func (n *node) start() {
	n.t.Helper()
	dp, err := dataplane.New(dataplane.Config{})
	if err != nil {
		n.t.Fatal(err)
	}
	n.dp = dp
	ctx, stop := context.WithCancel(context.WithoutCancel(n.t.Context()))
	var ended sync.WaitGroup
	ended.Go(func() {
		if err := dp.Run(ctx, n.pass); err != nil && ctx.Err() == nil {
			n.t.Errorf("run the dataplane: %v", err)
		}
	})
	n.plan()
	ended.Go(func() {
		ticker := time.NewTicker(passEvery)
		defer ticker.Stop()
		for {
			n.mu.Lock()
			state := n.state
			n.mu.Unlock()
			if _, err := dp.Apply(ctx, state); err != nil && ctx.Err() == nil {
				n.t.Logf("apply: %v", err)
			}
			select {
			case <-ctx.Done():
				return
			case <-n.wake:
			case <-ticker.C:
			}
		}
	})
	n.stop = sync.OnceFunc(func() {
		stop()
		ended.Wait()
		if err := dp.Close(); err != nil {
			n.t.Error(err)
		}
	})
	stopThis := n.stop
	n.t.Cleanup(func() {
		stopThis()
		if err := dataplane.Cleanup(context.WithoutCancel(n.t.Context()), dataplane.Config{}); err != nil {
			n.t.Error(err)
		}
	})
}

func (n *node) pass() {
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

// plan decides again.
func (n *node) plan() {
	cluster, _ := egress.Snapshot(n.brain.Objects())
	plan, ok := egress.PlanFor(cluster, egress.Resolve(cluster), n.viewer, nil, nil)
	if !ok {
		n.t.Fatalf("no plan for %s", n.viewer)
	}
	state := dataplane.State{HostIP: plan.HostIP, Hosts: plan.Hosts, Inside: plan.Inside, Subnets: plan.Subnets}
	for _, hosted := range plan.Hosted {
		state.Hosted = append(state.Hosted, dataplane.Hosted{IP: hosted.IP, NetID: hosted.NetID})
	}
	n.mu.Lock()
	n.state = state
	n.mu.Unlock()
	n.pass()
}

// addresses are those of the interface, with prefix length and label.
func (n *node) addresses() (list []conformance.InterfaceAddress, cidrs []string) {
	var links []struct {
		AddrInfo []struct {
			Local     string `json:"local"`
			PrefixLen int    `json:"prefixlen"`
			Label     string `json:"label"`
			Scope     string `json:"scope"`
		} `json:"addr_info"`
	}
	if err := json.Unmarshal([]byte(run(n.t, "ip -4 -json address show dev "+n.device)), &links); err != nil {
		n.t.Fatal(err)
	}
	for _, link := range links {
		for _, a := range link.AddrInfo {
			list = append(list, conformance.InterfaceAddress{IP: a.Local, Label: a.Label})
			cidrs = append(cidrs, fmt.Sprintf("%s/%d", a.Local, a.PrefixLen))
		}
	}
	slices.SortFunc(list, func(a, b conformance.InterfaceAddress) int {
		return netip.MustParseAddr(a.IP).Compare(netip.MustParseAddr(b.IP))
	})
	return list, cidrs
}

// translated are the addresses that the packet filter makes the source of
// packets, once for each rule, or entry of the map that a rule looks into.
func (n *node) translated() (ips []string) {
	for _, entry := range n.marked() {
		ips = append(ips, entry[2])
	}
	for line := range strings.Lines(run(n.t, "iptables-save -t nat")) {
		if _, rest, ok := strings.Cut(line, "--to-source "); ok {
			ips = append(ips, strings.Fields(rest)[0])
		}
	}
	slices.Sort(ips)
	return ips
}

// marked returns the egress IPs of marks: in each entry, the mark comes before the
// address.
func (n *node) marked() [][]string {
	n.t.Helper()
	list := run(n.t, "nft list map inet egressip egress-snat 2>/dev/null || true")
	return regexp.MustCompile(`(0x[0-9a-f]+) : ([0-9.]+)`).FindAllStringSubmatch(list, -1)
}

// announcements counts the ARP frames on the LAN in which a host announces
// an address as its own, from now on.
func (n *node) announcements(ip netip.Addr) (count func() int) {
	n.t.Helper()
	// A non-blocking socket, read when the count is asked for.
	fd := -1
	err := inLAN(func() (err error) {
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, int(swap(unix.ETH_P_ARP)))
		return err
	})
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { _ = unix.Close(fd) })
	seen := 0
	return func() int {
		frame := make([]byte, 1500)
		for {
			size, _, err := unix.Recvfrom(fd, frame, 0)
			if err != nil {
				return seen
			}
			if size < 42 {
				continue
			}
			// Sender and target of a gratuitous frame are the same.
			sender, target := netip.AddrFrom4([4]byte(frame[28:32])), netip.AddrFrom4([4]byte(frame[38:42]))
			if sender == ip && target == ip {
				seen++
			}
		}
	}
}

// inLAN calls f on a thread that is on the other machine, and ends with it.
func inLAN(f func() error) error { return within("lan", f) }

// within calls f on a thread that is in a network namespace, and ends with it.
func within(name string, f func() error) error {
	done := make(chan error, 1)
	go func() {
		// Never unlocked: the thread must not serve anybody else.
		runtime.LockOSThread()
		fd, err := unix.Open("/run/netns/"+name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err == nil {
			err = unix.Setns(fd, unix.CLONE_NEWNET)
			_ = unix.Close(fd)
		}
		if err == nil {
			err = f()
		}
		done <- err
	}()
	return <-done
}

// inbound returns what becomes of a new connection from the LAN to an address of
// the node: "delivered", "refused" or "dropped".
func (n *node) inbound(ip string) string {
	n.t.Helper()
	server, err := net.Listen("tcp4", "0.0.0.0:7000")
	if err != nil {
		n.t.Fatal(err)
	}
	defer server.Close()
	err = inLAN(func() error { return dial(net.Dialer{Timeout: testenv.Stretch(time.Second)}, ip+":7000") })
	var timeout net.Error
	switch {
	case err == nil:
		return "delivered"
	case errors.Is(err, unix.ECONNREFUSED):
		return "refused"
	case errors.As(err, &timeout) && timeout.Timeout():
		return "dropped"
	}
	return err.Error()
}

// reply returns what becomes of an answer to an address of the node: to a connection that
// a pod opens, whose packets have the mark of the address. The guard lets nobody else
// send with it, the node included.
func (n *node) reply(ip string) string {
	n.t.Helper()
	mark := "0"
	for _, entry := range n.marked() {
		if entry[2] == ip {
			mark = entry[1]
		}
	}
	var server net.Listener
	err := inLAN(func() (err error) {
		server, err = net.Listen("tcp4", lanIP+":7000")
		return err
	})
	if err != nil {
		n.t.Fatal(err)
	}
	defer server.Close()
	from := make(chan string, 1)
	go func() {
		defer close(from)
		if c, err := server.Accept(); err == nil {
			from <- c.RemoteAddr().(*net.TCPAddr).IP.String() //nolint:forcetypeassert // it is TCP
			_ = c.Close()
		}
	}()
	run(n.t, `ip netns add pod; ip link add pod0 type veth peer name eth0 netns pod; ip link set pod0 up; ip address add 10.254.99.1/24 dev pod0
		ip -netns pod link set lo up; ip -netns pod link set eth0 up; ip -netns pod address add 10.254.99.2/24 dev eth0
		ip -netns pod route add default via 10.254.99.1; echo 1 > /proc/sys/net/ipv4/ip_forward
		nft 'add table ip pods; add chain ip pods pre { type filter hook prerouting priority -140; }; add rule ip pods pre iifname pod0 meta mark set `+mark+`'`)
	defer run(n.t, "nft delete table ip pods; ip link del pod0; ip netns del pod")
	if err := within("pod", func() error { return dial(net.Dialer{Timeout: testenv.Stretch(time.Second)}, lanIP+":7000") }); err != nil {
		return err.Error()
	}
	if got := <-from; got != ip {
		return "to " + got
	}
	return "delivered"
}

func dial(dialer net.Dialer, address string) error {
	connection, err := dialer.Dial("tcp4", address)
	if err != nil {
		return err
	}
	return connection.Close()
}

// swap is htons.
func swap(n uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, n))
}
