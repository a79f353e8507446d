package bpf

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/internal/nlutil"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/mark"
)

// Each program is the one filter of this handle and priority at its hook of the
// overlay's clsact qdisc; replacing it is one step for the kernel.
const (
	filterHandle   = 1
	filterPriority = 1
)

// Programs are the two tc programs of the overlay, loaded.
type Programs struct {
	outward, inward *ebpf.Program
	clock           bool
}

// LoadPrograms loads the programs that use the given maps. probePort is the UDP port of
// probes, 0 for none. source is the source of the overlay's outer packets, of their family, which the
// kernel must be able to set, see SetsSource; the kernel chooses one if it is the zero Addr.
func LoadPrograms(m mark.Marks, maps *Maps, probePort uint16, source netip.Addr) (_ *Programs, err error) {
	p := &Programs{}
	out := outward(m, maps, probePort, source)
	if p.outward, err = ebpf.NewProgram(out); err != nil {
		return nil, fmt.Errorf("load tc program %s: %w", out.Name, err)
	}
	with, without := inward(maps, probePort, true), inward(maps, probePort, false)
	if p.inward, p.clock, err = loadEither(with, without); err != nil {
		return nil, errors.Join(fmt.Errorf("load tc program %s: %w", with.Name, err), p.Close())
	}
	return p, nil
}

// loadEither loads a program, or another one where the kernel's verifier refuses it. If it
// refuses both, or there is another error, that of the first is returned. Which one it was
// is first.
func loadEither(one, other *ebpf.ProgramSpec) (p *ebpf.Program, first bool, err error) {
	if p, err = ebpf.NewProgram(one); err == nil {
		return p, true, nil
	}
	if !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.EACCES) {
		return nil, false, err
	}
	if p, errOther := ebpf.NewProgram(other); errOther == nil {
		return p, false, nil
	}
	return nil, false, err
}

// Clock reports whether the answers to probes cease to be valid: before Linux 5.8, a
// program needs a license that is compatible with the GPL to know the time.
func (p *Programs) Clock() bool { return p.clock }

// Close gives up the handles; attached programs stay.
func (p *Programs) Close() error {
	var errs []error
	for _, h := range []*ebpf.Program{p.outward, p.inward} {
		if h != nil {
			errs = append(errs, h.Close())
		}
	}
	return errors.Join(errs...)
}

// Attach makes sure that the programs are at the two hooks of the overlay, and
// counts the changes. A program there with the same instructions and the same maps
// stays.
func (p *Programs) Attach(nl *netlink.Handle, link netlink.Link) (changes int, err error) {
	n, err := ensureClsact(nl, link)
	changes += n
	if err != nil {
		return changes, err
	}
	var errs []error
	for _, h := range []struct {
		parent uint32
		prog   *ebpf.Program
		name   string
	}{
		{netlink.HANDLE_MIN_EGRESS, p.outward, outwardName},
		{netlink.HANDLE_MIN_INGRESS, p.inward, inwardName},
	} {
		n, err := ensureFilter(nl, link, h.parent, h.prog, h.name)
		changes += n
		errs = append(errs, err)
	}
	return changes, errors.Join(errs...)
}

// ErrIngressQdisc is the error of an interface with a qdisc that leaves no room for
// ours and has no hook for what leaves.
var ErrIngressQdisc = errors.New("it has an ingress qdisc: replace that by clsact, which takes the same filters " +
	"(tc qdisc delete dev DEVICE ingress; tc qdisc add dev DEVICE clsact)")

func ensureClsact(nl *netlink.Handle, link netlink.Link) (changes int, err error) {
	qdiscs, err := nlutil.Whole(func() ([]netlink.Qdisc, error) { return nl.QdiscList(link) })
	if err != nil {
		return 0, fmt.Errorf("list qdiscs of %s: %w", link.Attrs().Name, err)
	}
	for _, q := range qdiscs {
		switch q.Type() {
		case "clsact":
			return 0, nil
		case "ingress":
			return 0, fmt.Errorf("add clsact qdisc to %s: %w", link.Attrs().Name, ErrIngressQdisc)
		}
	}
	err = nl.QdiscAdd(&netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: link.Attrs().Index,
		Handle:    netlink.MakeHandle(0xffff, 0),
		Parent:    netlink.HANDLE_CLSACT,
	}})
	if errors.Is(err, unix.EEXIST) {
		return 0, nil
	}
	return changes, nlutil.Count(&changes, "add clsact qdisc to "+link.Attrs().Name, err)
}

func ensureFilter(nl *netlink.Handle, link netlink.Link, parent uint32, prog *ebpf.Program, name string) (changes int, err error) {
	filters, err := nlutil.Whole(func() ([]netlink.Filter, error) { return nl.FilterList(link, parent) })
	if err != nil {
		return 0, fmt.Errorf("list tc filters of %s: %w", link.Attrs().Name, err)
	}
	for _, f := range filters {
		if b, ok := f.(*netlink.BpfFilter); ok && b.Attrs().Handle == filterHandle &&
			b.Attrs().Priority == filterPriority && b.DirectAction && sameProgram(b.Id, prog) {
			return 0, nil
		}
	}
	return changes, nlutil.Count(&changes, "attach tc program "+name, nl.FilterReplace(&netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{
			LinkIndex: link.Attrs().Index, Parent: parent,
			Handle: filterHandle, Priority: filterPriority, Protocol: unix.ETH_P_ALL,
		},
		Fd: prog.FD(), Name: name, DirectAction: true,
	}))
}

// sameProgram reports whether the attached program does what prog does, on the
// same maps: those of another agent's run do, where its maps were adopted.
func sameProgram(attachedID int, prog *ebpf.Program) bool {
	attached, err := ebpf.NewProgramFromID(ebpf.ProgramID(attachedID))
	if err != nil {
		return false
	}
	defer attached.Close()
	is, err := attached.Info()
	if err != nil {
		return false
	}
	want, err := prog.Info()
	if err != nil || is.Tag != want.Tag {
		return false
	}
	isMaps, ok := is.MapIDs()
	wantMaps, wantOK := want.MapIDs()
	return ok && wantOK && sameMembers(isMaps, wantMaps)
}

func sameMembers(a, b []ebpf.MapID) bool {
	if len(a) != len(b) {
		return false
	}
	in := make(map[ebpf.MapID]bool, len(a))
	for _, id := range a {
		in[id] = true
	}
	for _, id := range b {
		if !in[id] {
			return false
		}
	}
	return true
}
