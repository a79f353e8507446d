package dataplane

import (
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/egressip-operator/egressip-operator/internal/testenv/netnstest"
)

func TestSetOfOthersIsNotListed(t *testing.T) {
	h := netnstest.Enter(t)
	for _, name := range []string{"somebody-elses", "egress-of-others"} {
		must(t, h.IpsetCreate(name, "hash:ip", netlink.IpsetCreateOptions{}))
	}
	names, err := presentSets()
	if err != nil || len(names) != 0 {
		t.Fatalf("own sets: %v, %v", names, err)
	}
}
