package dataplane

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/conntrack"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/ipset"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/rules"
)

// Our ipsets. The rules refer to them.
const (
	setPods   = rules.SetPods
	setLocked = rules.SetLocked
	setHosts  = rules.SetHosts
	setInside = rules.SetInside
	setIPs    = rules.SetIPs
	setResets = rules.SetResets

	setExcluded = rules.SetExcluded
	setPresent  = rules.SetPresent

	setPods6    = rules.SetPods6
	setHosts6   = rules.SetHosts6
	setLocked6  = rules.SetLocked6
	setInside6  = rules.SetInside6
	setIPs6     = rules.SetIPs6
	setResets6  = rules.SetResets6
	setPresent6 = rules.SetPresent6

	setExcluded6 = rules.SetExcluded6
)

// resetFor is how long a pod may take to notice that a connection has ended:
// longer than TCP waits between two attempts to send.
const resetFor = 15 * time.Minute

func ourSets() []ipset.Set {
	return []ipset.Set{
		{Name: setPods, Type: "hash:ip", Marks: true},
		{Name: setLocked, Type: "hash:ip"},
		{Name: setHosts, Type: "hash:ip"},
		{Name: setInside, Type: "hash:net"},
		{Name: setIPs, Type: "hash:ip"},
		{Name: setExcluded, Type: "hash:net,net"},
		{Name: setResets, Type: "hash:ip,port,ip", Timeout: resetFor},
		{Name: setPresent, Type: "hash:net", Timeout: defaultAwayAfter},
		{Name: setPresent6, Type: "hash:net", Timeout: defaultAwayAfter, IPv6: true},
		{Name: setPods6, Type: "hash:ip", Marks: true, IPv6: true},
		{Name: setLocked6, Type: "hash:ip", IPv6: true},
		{Name: setHosts6, Type: "hash:ip", IPv6: true},
		{Name: setInside6, Type: "hash:net", IPv6: true},
		{Name: setIPs6, Type: "hash:ip", IPv6: true},
		{Name: setExcluded6, Type: "hash:net,net", IPv6: true},
		{Name: setResets6, Type: "hash:ip,port,ip", Timeout: resetFor, IPv6: true},
	}
}

// ourSet returns one of our sets by its name.
func ourSet(name string) ipset.Set {
	sets := ourSets()
	return sets[slices.IndexFunc(sets, func(s ipset.Set) bool { return s.Name == name })]
}

// ensureSet makes a set where it is missing. A kernel that does not have its type is asked again after a
// while only.
func (d *Dataplane) ensureSet(s ipset.Set) (changes int, err error) {
	if missing := d.missingSets[s.Type]; missing.err != nil && !missing.due() {
		return 0, missing.err
	}
	changes, err = ipset.Ensure(d.nl, s)
	if !errors.Is(err, ipset.ErrNoType) {
		delete(d.missingSets, s.Type)
		return changes, err
	}
	if d.missingSets == nil {
		d.missingSets = make(map[string]attempt)
	}
	d.missingSets[s.Type] = made(err)
	return changes, d.missingSets[s.Type].err
}

// presentSets lists the names of our sets that exist. The prefix alone proves
// nothing: others may call a set egress-something too.
func presentSets() ([]string, error) {
	names, err := ipset.Names()
	return slices.DeleteFunc(names, func(name string) bool {
		return !slices.ContainsFunc(ourSets(), func(s ipset.Set) bool { return s.Name == name })
	}), err
}

// destroySets destroys all our sets that exist, and counts them.
func destroySets(nl *netlink.Handle) (changes int, err error) {
	names, err := presentSets()
	errs := []error{err}
	for _, name := range names {
		errs = append(errs, ipset.Destroy(nl, name))
	}
	return len(names), errors.Join(errs...)
}

// putReset notes a connection of a pod, which must get a reset when it goes on.
func putReset(h *netlink.Handle, f conntrack.Flow) error {
	set := setResets
	if f.Source.Is6() {
		set = setResets6
	}
	err := ipset.PutConnection(h, set, ipset.Connection{
		Source: f.Source, Protocol: f.Protocol, SourcePort: f.SourcePort, Dest: f.Dest,
	})
	if err != nil {
		return fmt.Errorf("note that a connection must be reset: %w", err)
	}
	return nil
}
