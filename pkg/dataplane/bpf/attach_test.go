package bpf

import (
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/egressip-operator/egressip-operator/internal/testenv/netnstest"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/mark"
)

func TestProgramsAreAttachedAgain(t *testing.T) {
	h := netnstest.Enter(t)
	maps, err := OpenMaps(h, netnstest.PinDir(t), device, Shape{IPv6: true})
	must(t, err)
	defer maps.Close()
	progs, err := LoadPrograms(mark.Default(), maps, 9788, netip.Addr{})
	must(t, err)
	defer progs.Close()
	attach := func() (int, error) { return progs.Attach(h, addDevice(t, h)) }
	netnstest.Twice(t, "programs", attach)
	for _, c := range []struct {
		name   string
		damage func(netlink.Link) error
	}{
		{"filters deleted", func(l netlink.Link) error { return h.QdiscDel(&netlink.Clsact{QdiscAttrs: clsactOf(l)}) }},
		{"device deleted", h.LinkDel},
	} {
		must(t, c.damage(addDevice(t, h)))
		netnstest.Twice(t, "programs after: "+c.name, attach)
	}
}

func clsactOf(l netlink.Link) netlink.QdiscAttrs {
	return netlink.QdiscAttrs{LinkIndex: l.Attrs().Index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT}
}
