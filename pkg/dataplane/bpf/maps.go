package bpf

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

// MaxVia is the greatest number of egress hosts in a Route.
const MaxVia = 8

// Route is where the overlay carries a pod's packets: an entry of map pods.
type Route struct {
	// NetID is the network identifier (VNI) of the pod's namespace.
	NetID uint32
	// Via are the egress hosts, 1 to MaxVia.
	Via []netip.Addr
	// Sources are the source addresses that they give, as many; the zero Addr
	// where that is not known.
	Sources []netip.Addr
}

// Equal reports whether two routes are the same.
func (r Route) Equal(o Route) bool {
	return r.NetID == o.NetID && slices.Equal(r.Via, o.Via) && slices.Equal(r.Sources, o.Sources)
}

// podValue is Route as the tc programs read it. S is the form of a source address, H that of
// an egress host: of IPv4 a number in host order, of IPv6 bytes.
type podValue[S, H comparable] struct {
	NetID, Count uint32
	Via          [MaxVia]H
	// Sources are not for the program, but for an agent that restarts.
	Sources [MaxVia]S
}

// returnValue is an entry of map returns: the network of a remote pod and the
// host that it is on.
type returnValue[H comparable] struct {
	NetID uint32
	Host  H
}

// Maps are the BPF maps of the tc programs. They are pinned, so that traffic flows
// on while the agent is away, and the next one finds them. Those of IPv6 are there where
// that is asked for.
type Maps struct {
	dir      string
	ip4, ip6 familyMaps
	// answer: what the kernel answers to probes.
	answer *ebpf.Map

	outer          outer
	table4, table6 routeTable
}

// Shape says which maps there are, and what is in them.
type Shape struct {
	// IPv6: there are maps for inner packets of IPv6, too.
	IPv6 bool
	// OverIPv6: hosts have addresses of IPv6, and the outer packets do. Then there are maps
	// for both families.
	OverIPv6 bool
}

// outer is the family of hosts' addresses.
func (s Shape) outer() outer {
	if s.OverIPv6 {
		return outer{ipv6()}
	}
	return outer{ipv4()}
}

// mapSpecs are all maps, with those of IPv6 last.
func mapSpecs(o outer) []*ebpf.MapSpec {
	return slices.Concat(ipv4().specs(o), []*ebpf.MapSpec{answerSpec(o)}, ipv6().specs(o))
}

// OpenMaps opens the maps that are pinned in dir. One that is not pinned is adopted
// from the programs at a device, the overlay, or else made. One of another shape,
// as after an upgrade, is replaced. The attached programs keep the maps that they
// were loaded with, so that a new map changes nothing until programs that use it
// replace them.
//
// dir must be in a bpffs; where it is not, one is mounted. Those of IPv6 take some MiB of
// memory.
func OpenMaps(nl *netlink.Handle, dir, device string, shape Shape) (_ *Maps, err error) {
	if err := ensureBPFFS(dir); err != nil {
		return nil, err
	}
	// Before Linux 5.11 the maps count as locked memory, of which a process may
	// have 64 KiB.
	if err := rlimit.RemoveMemlock(); err != nil {
		return nil, fmt.Errorf("lift limit on memory for BPF maps: %w", err)
	}
	attached, err := attachedMaps(nl, device)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, closeMaps(attached)) }()
	m := newMaps(dir, shape.outer())
	wanted := m.all()
	if !shape.IPv6 && !shape.OverIPv6 {
		wanted = wanted[:len(wanted)-len(m.ip6.all())]
	}
	for i, to := range wanted {
		spec := mapSpecs(m.outer)[i]
		if err := adoptMap(dir, spec, attached[spec.Name]); err != nil {
			return nil, errors.Join(err, m.Close())
		}
		opened, err := openMap(dir, spec)
		if err != nil {
			return nil, errors.Join(err, m.Close())
		}
		*to = opened
	}
	return m, nil
}

func newMaps(dir string, o outer) *Maps {
	m := &Maps{dir: dir, outer: o}
	m.table4, m.table6 = tables(o)
	return m
}

// HasIPv6 reports whether there are maps for IPv6.
func (m *Maps) HasIPv6() bool { return m.ip6.pods != nil }

// OverIPv6 reports whether hosts have addresses of IPv6 in the maps.
func (m *Maps) OverIPv6() bool { return m.outer.six() }

// adoptMap pins the map of an attached program, where none is pinned.
func adoptMap(dir string, spec *ebpf.MapSpec, attached *ebpf.Map) error {
	if fits := attached != nil && spec.Compatible(attached) == nil; !fits {
		return nil
	}
	path := filepath.Join(dir, spec.Name)
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := attached.Pin(path); err != nil {
		return fmt.Errorf("pin BPF map %s of an attached program: %w", path, err)
	}
	return nil
}

// all are the handles, in the order of mapSpecs.
func (m *Maps) all() []**ebpf.Map {
	return slices.Concat(m.ip4.all(), []**ebpf.Map{&m.answer}, m.ip6.all())
}

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

// Close gives up the handles; the pinned maps stay.
func (m *Maps) Close() error {
	var errs []error
	for _, h := range m.all() {
		if *h != nil {
			errs = append(errs, (*h).Close())
		}
	}
	return errors.Join(errs...)
}

// RemoveMaps unpins the maps in dir, and removes dir. The kernel frees a map
// when the last program that uses it has gone.
func RemoveMaps(dir string) (removed int, err error) {
	var errs []error
	for _, spec := range mapSpecs(Shape{}.outer()) {
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

// PinnedMaps lists the paths of the maps that are pinned in dir.
func PinnedMaps(dir string) (list []string, err error) {
	var errs []error
	for _, spec := range mapSpecs(Shape{}.outer()) {
		path := filepath.Join(dir, spec.Name)
		switch _, err := os.Lstat(path); {
		case err == nil:
			list = append(list, path)
		case !errors.Is(err, os.ErrNotExist):
			errs = append(errs, fmt.Errorf("look for BPF map: %w", err))
		}
	}
	return list, errors.Join(errs...)
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

// Routes returns all entries of maps pods.
func (m *Maps) Routes() (map[netip.Addr]Route, error) {
	pods := map[netip.Addr]Route{}
	if err := errors.Join(m.table4.routes(m.ip4, pods), m.table6.routes(m.ip6, pods)); err != nil {
		return nil, err
	}
	return pods, nil
}

// PutRoute sets the route of a pod, in one step.
func (m *Maps) PutRoute(ip netip.Addr, r Route) (err error) {
	if len(r.Via) == 0 || len(r.Via) > MaxVia {
		return fmt.Errorf("set route of pod %v: %d egress hosts, of 1 to %d", ip, len(r.Via), MaxVia)
	}
	if ip.Is4() {
		err = m.table4.put(m.ip4, ip, r)
	} else {
		err = m.table6.put(m.ip6, ip, r)
	}
	if err != nil {
		return fmt.Errorf("set route of pod %v in BPF map: %w", ip, err)
	}
	return nil
}

// DeleteRoute takes a pod's route away; its packets with REMOTE are dropped from then
// on.
func (m *Maps) DeleteRoute(ip netip.Addr) (err error) {
	if ip.Is4() {
		err = m.table4.del(m.ip4, ip)
	} else {
		err = m.table6.del(m.ip6, ip)
	}
	if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("delete route of pod %v from BPF map: %w", ip, err)
	}
	return nil
}

// Hosted returns all entries of maps hosted: network -> mark.
func (m *Maps) Hosted() (map[Network]uint32, error) {
	hosted := map[Network]uint32{}
	if err := errors.Join(m.table4.networks(m.ip4, hosted), m.table6.networks(m.ip6, hosted)); err != nil {
		return nil, err
	}
	return hosted, nil
}

// hosted is map hosted of a network's family; nil where that is not open.
func (m *Maps) hosted(n Network) *ebpf.Map {
	if n.IPv6 {
		return m.ip6.hosted
	}
	return m.ip4.hosted
}

// PutHosted makes packets of a network that come over the overlay get a mark.
func (m *Maps) PutHosted(n Network, mark uint32) error {
	err := errNoMaps
	if hosted := m.hosted(n); hosted != nil {
		err = hosted.Put(n.NetID, mark)
	}
	if err != nil {
		return fmt.Errorf("set mark of network %d in BPF map: %w", n.NetID, err)
	}
	return nil
}

// DeleteHosted leaves packets of a network without a mark, so that they are dropped.
func (m *Maps) DeleteHosted(n Network) error {
	hosted := m.hosted(n)
	if hosted == nil {
		return nil
	}
	if err := hosted.Delete(n.NetID); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("delete network %d from BPF map: %w", n.NetID, err)
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
