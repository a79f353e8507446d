package dataplane

import (
	"errors"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/egressip-operator/egressip-operator/internal/testenv/netnstest"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/ipset"
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

// A kernel that has no sets of a type is asked for them once in a while, and not in each pass: it may
// start a program that looks for a module each time.
//
// Mutant killed: missing-types-are-asked-for-again.
func TestMissingTypesAreAskedForOnceInAWhile(t *testing.T) {
	d := &Dataplane{nl: netnstest.Enter(t)}
	strange := ipset.Set{Name: "egress-strange", Type: "hash:strange"}
	_, first := d.ensureSet(strange)
	if !errors.Is(first, ipset.ErrNoType) {
		t.Fatalf("a type that no kernel has: %v", first)
	}
	asked := d.missingSets[strange.Type].at
	if _, again := d.ensureSet(strange); !errors.Is(again, ipset.ErrNoType) || d.missingSets[strange.Type].at != asked {
		t.Errorf("asked again: %v", again)
	}
	if n, err := d.ensureSet(ipset.Set{Name: "egress-other", Type: "hash:ip"}); n != 1 || err != nil {
		t.Errorf("a set of another type: %d, %v", n, err)
	}
}
