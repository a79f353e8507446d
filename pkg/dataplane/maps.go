package dataplane

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Sizes of the BPF maps: pods and egress IPs of this host, and what it
// remembers of pods and connections elsewhere. Kubernetes' own limit is some
// hundred pods for each node.
const (
	maxPods    = 16384
	maxHosted  = 4096
	maxReturns = 131072
	maxFlows   = 131072
)

// podRoute is where the overlay carries a pod's packets: an entry of map pods.
type podRoute struct {
	netID uint32
	// via are the egress hosts, 1 to MaxVia.
	via []netip.Addr
	// sources are the source addresses that they give, as many; the zero Addr
	// where that is not known.
	sources []netip.Addr
}

func newRoute(p Pod) podRoute {
	r := podRoute{netID: p.NetID, via: p.Via, sources: make([]netip.Addr, len(p.Via))}
	copy(r.sources, p.Sources)
	return r
}

func (r podRoute) equal(o podRoute) bool {
	return r.netID == o.netID && slices.Equal(r.via, o.via) && slices.Equal(r.sources, o.sources)
}

// moves tells whether a connection that began with a host gets another source
// address when its pod's route becomes o.
func (r podRoute) moves(o podRoute, host netip.Addr) bool {
	i := slices.Index(r.via, host)
	if i < 0 || !r.sources[i].IsValid() {
		return false
	}
	if j := slices.Index(o.via, host); j >= 0 {
		return o.sources[j].IsValid() && o.sources[j] != r.sources[i]
	}
	// It gets any of the others.
	return slices.ContainsFunc(o.sources, func(ip netip.Addr) bool { return ip.IsValid() && ip != r.sources[i] })
}

// podValue is podRoute as the tc program reads it, addresses in host order.
type podValue struct {
	NetID, Count uint32
	Via          [MaxVia]uint32
	// Sources are not for the program, but for the agent that comes next.
	Sources [MaxVia]uint32
}

// returnValue is an entry of map returns: the network of a remote pod and the
// host that it is on, in host order.
type returnValue struct{ NetID, Host uint32 }

// flowKey is a connection of a pod whose namespace uses several egress hosts.
type flowKey struct{ Source, Dest, Ports, Protocol uint32 }

// mapSet are the BPF maps of the tc programs. They are pinned, so that traffic
// flows on while the agent is away, and the next one finds them.
type mapSet struct {
	dir string
	// pods: inner source -> network and egress hosts.
	pods *ebpf.Map
	// hosted: network -> mark of its egress IP here.
	hosted *ebpf.Map
	// returns: inner source as it came in -> network and the host it is on.
	returns *ebpf.Map
	// flows: connection -> egress host that it began with.
	flows *ebpf.Map
}

func mapSpecs() []*ebpf.MapSpec {
	return []*ebpf.MapSpec{
		{Name: "egress_pods", Type: ebpf.Hash, KeySize: 4, ValueSize: uint32(binary.Size(podValue{})), MaxEntries: maxPods},
		{Name: "egress_hosted", Type: ebpf.Hash, KeySize: 4, ValueSize: 4, MaxEntries: maxHosted},
		{Name: "egress_returns", Type: ebpf.LRUHash, KeySize: 4, ValueSize: uint32(binary.Size(returnValue{})), MaxEntries: maxReturns},
		{Name: "egress_flows", Type: ebpf.LRUHash, KeySize: uint32(binary.Size(flowKey{})), ValueSize: 4, MaxEntries: maxFlows},
	}
}

// openMaps opens the maps that are pinned in dir. One that is not there is
// adopted from the programs that run at the overlay, or else made. One of
// another shape, as after an upgrade, is replaced. The programs that run keep
// the maps that they were loaded with, so that a new map changes nothing until
// programs that use it replace them.
//
// dir must be in a bpffs; one is mounted there where it is not.
func openMaps(nl *netlink.Handle, dir string) (_ *mapSet, err error) {
	if err := ensureBPFFS(dir); err != nil {
		return nil, err
	}
	// Before Linux 5.11 the maps count as locked memory, of which a process may
	// have 64 KiB.
	if err := rlimit.RemoveMemlock(); err != nil {
		return nil, fmt.Errorf("lift limit on memory for BPF maps: %w", err)
	}
	running, err := runningMaps(nl)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, closeMaps(running)) }()
	m := &mapSet{dir: dir}
	for i, to := range m.all() {
		spec := mapSpecs()[i]
		if err := adoptMap(dir, spec, running[spec.Name]); err != nil {
			return nil, errors.Join(err, m.close())
		}
		opened, err := openMap(dir, spec)
		if err != nil {
			return nil, errors.Join(err, m.close())
		}
		*to = opened
	}
	return m, nil
}

// adoptMap pins a map that runs, where none is pinned.
func adoptMap(dir string, spec *ebpf.MapSpec, running *ebpf.Map) error {
	if fits := running != nil && spec.Compatible(running) == nil; !fits {
		return nil
	}
	path := filepath.Join(dir, spec.Name)
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := running.Pin(path); err != nil {
		return fmt.Errorf("pin BPF map %s that runs: %w", path, err)
	}
	return nil
}

func (m *mapSet) all() []**ebpf.Map { return []**ebpf.Map{&m.pods, &m.hosted, &m.returns, &m.flows} }

func openMap(dir string, spec *ebpf.MapSpec) (*ebpf.Map, error) {
	path := filepath.Join(dir, spec.Name)
	spec.Pinning = ebpf.PinByName
	opts := ebpf.MapOptions{PinPath: dir}
	m, err := ebpf.NewMapWithOptions(spec, opts)
	if errors.Is(err, ebpf.ErrMapIncompatible) {
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("remove BPF map %s of another version: %w", path, err)
		}
		m, err = ebpf.NewMapWithOptions(spec, opts)
	}
	if err != nil {
		return nil, fmt.Errorf("open BPF map %s: %w", path, err)
	}
	return m, nil
}

// close gives up the handles; the pinned maps stay.
func (m *mapSet) close() error {
	var errs []error
	for _, h := range m.all() {
		if *h != nil {
			errs = append(errs, (*h).Close())
		}
	}
	return errors.Join(errs...)
}

// removeMaps unpins the maps in dir, and removes dir. The kernel frees a map
// when the last program that uses it has gone.
func removeMaps(dir string) (removed int, err error) {
	var errs []error
	for _, spec := range mapSpecs() {
		err := os.Remove(filepath.Join(dir, spec.Name))
		switch {
		case err == nil:
			removed++
		case !errors.Is(err, os.ErrNotExist):
			errs = append(errs, fmt.Errorf("unpin BPF map: %w", err))
		}
	}
	err = os.Remove(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.ENOTEMPTY) && !errors.Is(err, unix.EBUSY) {
		errs = append(errs, fmt.Errorf("remove directory of BPF maps: %w", err))
	}
	return removed, errors.Join(errs...)
}

// ensureBPFFS makes dir, in a bpffs: where its parent is in none, one is
// mounted on the parent.
func ensureBPFFS(dir string) error {
	parent := filepath.Dir(dir)
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return fmt.Errorf("make directory for BPF maps: %w", err)
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(parent, &fs); err != nil {
		return fmt.Errorf("look at file system of %s: %w", parent, err)
	}
	if fs.Type != unix.BPF_FS_MAGIC {
		if err := unix.Mount("bpf", parent, "bpf", 0, "mode=0700"); err != nil {
			return fmt.Errorf("mount bpffs on %s, which holds BPF maps across restarts: %w", parent, err)
		}
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("make directory for BPF maps: %w", err)
	}
	return nil
}

// listPods gives all entries of map pods.
func (m *mapSet) listPods() (map[netip.Addr]podRoute, error) {
	pods := map[netip.Addr]podRoute{}
	var key [4]byte
	var value podValue
	it := m.pods.Iterate()
	for it.Next(&key, &value) {
		r := podRoute{netID: value.NetID}
		for i, h := range value.Via[:min(value.Count, MaxVia)] {
			r.via = append(r.via, addrFromHost(h))
			var source netip.Addr
			if value.Sources[i] != 0 {
				source = addrFromHost(value.Sources[i])
			}
			r.sources = append(r.sources, source)
		}
		pods[netip.AddrFrom4(key)] = r
	}
	if err := it.Err(); err != nil {
		return nil, fmt.Errorf("list BPF map pods: %w", err)
	}
	return pods, nil
}

// putPod sets the route of a pod, in one step.
func (m *mapSet) putPod(ip netip.Addr, r podRoute) error {
	if len(r.via) == 0 || len(r.via) > MaxVia {
		return fmt.Errorf("set route of pod %v: %d egress hosts, of 1 to %d", ip, len(r.via), MaxVia)
	}
	value := podValue{NetID: r.netID, Count: uint32(len(r.via))}
	for i, h := range r.via {
		value.Via[i] = hostOrder(h)
		if i < len(r.sources) && r.sources[i].IsValid() {
			value.Sources[i] = hostOrder(r.sources[i])
		}
	}
	if err := m.pods.Put(ip.As4(), &value); err != nil {
		return fmt.Errorf("set route of pod %v in BPF map: %w", ip, err)
	}
	return nil
}

// deletePod takes a pod's route away; what bears REMOTE is dropped from then on.
func (m *mapSet) deletePod(ip netip.Addr) error {
	if err := m.pods.Delete(ip.As4()); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("delete route of pod %v from BPF map: %w", ip, err)
	}
	return nil
}

// beginnings are the egress hosts that connections began with.
type beginnings map[[16]byte]uint32

// begun gives the hosts that the connections of some pods began with. The programs
// write others in their place as soon as the pods' routes have changed.
func (m *mapSet) begun(pods map[netip.Addr]bool) (beginnings, error) {
	found := beginnings{}
	var key [16]byte
	var host uint32
	it := m.flows.Iterate()
	for it.Next(&key, &host) {
		if pods[netip.AddrFrom4([4]byte(key[:4]))] {
			found[key] = host
		}
	}
	// Where so many connections come and go that the map changes too much under the
	// eyes, what was seen serves.
	if err := it.Err(); err != nil && !errors.Is(err, ebpf.ErrIterationAborted) {
		return found, fmt.Errorf("list BPF map flows: %w", err)
	}
	return found, nil
}

// host gives the egress host that a connection began with; false where it is not known.
func (b beginnings) host(f flow) (netip.Addr, bool) {
	var key [16]byte // a flowKey, as the program writes it
	source, dest := f.source.As4(), f.dest.As4()
	copy(key[0:], source[:])
	copy(key[4:], dest[:])
	if f.protocol == unix.IPPROTO_TCP || f.protocol == unix.IPPROTO_UDP {
		binary.BigEndian.PutUint16(key[8:], f.sourcePort)
		binary.BigEndian.PutUint16(key[10:], f.destPort)
	}
	key[12] = f.protocol
	host, known := b[key]
	if !known {
		return netip.Addr{}, false
	}
	return addrFromHost(host), true
}

// listHosted gives all entries of map hosted: network -> mark.
func (m *mapSet) listHosted() (map[uint32]uint32, error) {
	hosted := map[uint32]uint32{}
	var netID, mark uint32
	it := m.hosted.Iterate()
	for it.Next(&netID, &mark) {
		hosted[netID] = mark
	}
	if err := it.Err(); err != nil {
		return nil, fmt.Errorf("list BPF map hosted: %w", err)
	}
	return hosted, nil
}

// putHosted has packets of a network marked with mark.
func (m *mapSet) putHosted(netID, mark uint32) error {
	if err := m.hosted.Put(netID, mark); err != nil {
		return fmt.Errorf("set mark of network %d in BPF map: %w", netID, err)
	}
	return nil
}

// deleteHosted has packets of a network left without a mark, to be dropped.
func (m *mapSet) deleteHosted(netID uint32) error {
	if err := m.hosted.Delete(netID); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("delete network %d from BPF map: %w", netID, err)
	}
	return nil
}

// hostOrder is an IPv4 address as a number in host order, as struct
// bpf_tunnel_key has it.
func hostOrder(ip netip.Addr) uint32 {
	b := ip.As4()
	return binary.BigEndian.Uint32(b[:])
}

func addrFromHost(h uint32) netip.Addr {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], h)
	return netip.AddrFrom4(b)
}
