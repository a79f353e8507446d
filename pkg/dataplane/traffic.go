package dataplane

import "github.com/egressip-operator/egressip-operator/pkg/dataplane/overlay"

// OverlayTraffic returns what the overlay device has counted since it was made; ok is false while
// there is none. It waits for no pass, and is safe for concurrent use until Close.
func (d *Dataplane) OverlayTraffic() (t overlay.Traffic, ok bool, err error) {
	return overlay.Count(d.nl)
}
