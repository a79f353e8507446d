package dataplane

import (
	"testing"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/overlay"
)

// given: a pod whose egress IP is on another node; when it sends and gets an answer, then both
// nodes' overlay devices have counted it, in both directions. Without a device nothing is counted.
func TestOverlayCountsItsTraffic(t *testing.T) {
	w := newWorld(t, 2, ownTable())
	n1, n2 := w.nodes[0], w.nodes[1]
	count := func(n *node) (traffic overlay.Traffic, ok bool) {
		n.Do(t, func() {
			var err error
			traffic, ok, err = n.dp.OverlayTraffic()
			must(t, err)
		})
		return traffic, ok
	}
	if traffic, ok := count(n1); ok || traffic != (overlay.Traffic{}) {
		t.Fatalf("before the first pass: %+v, %t", traffic, ok)
	}
	pod := n2.addPod(t, "there", 2)
	n1.host(eip1, 7)
	pod.set(remote(7, n1))
	w.applyAll(t)
	before := map[*node]overlay.Traffic{}
	for _, n := range w.nodes {
		traffic, ok := count(n)
		if !ok {
			t.Fatal("no device after a pass")
		}
		before[n] = traffic
	}
	w.bastion.serveEcho(t, 7000)
	echoes(t, pod.dial(t, "tcp4", bastionIP+":7000"), 1<<20)
	for _, n := range w.nodes {
		now, _ := count(n)
		for direction, c := range map[string][2]overlay.Counts{"received": {before[n].Received, now.Received}, "sent": {before[n].Sent, now.Sent}} {
			if c[1].Packets <= c[0].Packets || c[1].Bytes < c[0].Bytes+1<<20 || c[1].Errors != c[0].Errors {
				t.Errorf("%v %s: %+v, and then %+v", n.ip, direction, c[0], c[1])
			}
		}
	}
}
