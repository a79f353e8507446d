package overlay

import (
	"fmt"

	"github.com/vishvananda/netlink"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/internal/nlutil"
)

// Traffic is what the overlay device has counted since it was made.
type Traffic struct {
	Received, Sent Counts
}

// Counts are those of one direction. Dropped are packets that the device did not take or pass on,
// such as those without a way to the other host; what a tc program drops is in none of them.
type Counts struct {
	Packets, Bytes, Dropped, Errors uint64
}

// Count reads the counters of the overlay device. ok is false if there is none of ours.
func Count(nl *netlink.Handle) (t Traffic, ok bool, err error) {
	link, err := nl.LinkByName(Name)
	switch {
	case nlutil.IsLinkNotFound(err):
		return Traffic{}, false, nil
	case err != nil:
		return Traffic{}, false, fmt.Errorf("read the counters of overlay device %s: %w", Name, err)
	case !isOwn(link) || link.Attrs().Statistics == nil:
		return Traffic{}, false, nil
	}
	s := link.Attrs().Statistics
	return Traffic{
		Received: Counts{Packets: s.RxPackets, Bytes: s.RxBytes, Dropped: s.RxDropped, Errors: s.RxErrors},
		Sent:     Counts{Packets: s.TxPackets, Bytes: s.TxBytes, Dropped: s.TxDropped, Errors: s.TxErrors},
	}, true, nil
}
