package routing

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/internal/nlutil"
)

// rulePriorityNote is the priority of a rule that does nothing. It notes that the reverse path filter
// of a device was made loose, and by its priority what it was before: this one means 0, the next
// one 1.
const rulePriorityNote = 78

// Note is what the reverse path filter of a device was before it was made loose. The kernel keeps it
// as a policy rule without action: its interface is the device, its mark the index of that. Devices
// are renamed, but keep their index.
type Note struct {
	// Link is the index of the device; 0 in a note of a version that did not write it.
	Link int
	// Device is the name that it had then.
	Device string
	// Was is 0 or 1.
	Was uint32
}

// isNote reports whether a rule notes what a reverse path filter was.
func isNote(r netlink.Rule) bool {
	return r.Protocol == routeProtocol && r.Table == 0 && r.Goto <= 0 && r.IifName != "" &&
		(r.Priority == rulePriorityNote || r.Priority == rulePriorityNote+1)
}

// Notes returns what the kernel has noted, in order of devices.
func Notes(h *netlink.Handle) (notes []Note, err error) {
	rules, err := nlutil.Whole(func() ([]netlink.Rule, error) { return h.RuleList(netlink.FAMILY_V4) })
	if err != nil {
		return nil, fmt.Errorf("list ip rules: %w", err)
	}
	for _, r := range rules {
		if isNote(r) {
			notes = append(notes, Note{Link: int(r.Mark), Device: r.IifName, Was: uint32(r.Priority - rulePriorityNote)}) //nolint:gosec // 0 or 1
		}
	}
	slices.SortFunc(notes, func(a, b Note) int {
		return cmp.Or(a.Link-b.Link, cmp.Compare(a.Device, b.Device), cmp.Compare(a.Was, b.Was))
	})
	return notes, nil
}

// PutNote notes what the filter of a device was.
func PutNote(h *netlink.Handle, n Note) error {
	if err := h.RuleAdd(n.rule()); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("note the reverse path filter of %s: %w", n.Device, err)
	}
	return nil
}

// DeleteNote deletes a note.
func DeleteNote(h *netlink.Handle, n Note) error {
	if err := h.RuleDel(n.rule()); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("delete the note about the reverse path filter of %s: %w", n.Device, err)
	}
	return nil
}

func (n Note) rule() *netlink.Rule {
	r := netlink.NewRule()
	r.Family, r.Type, r.Protocol, r.IifName = netlink.FAMILY_V4, nl.FR_ACT_NOP, routeProtocol, n.Device
	r.Priority = rulePriorityNote + int(n.Was)
	if n.Link > 0 {
		mask := uint32(math.MaxUint32)
		r.Mark, r.Mask = uint32(n.Link), &mask //nolint:gosec // the kernel's numbers fit
	}
	return r
}
