package nftables

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"go4.org/netipx"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/rules"
)

// Excluded are networks to which pods leave as without us, by pod: the fewest that have the same
// addresses, in order.
type Excluded map[netip.Addr][]netip.Prefix

// Exclusion is a change of the networks of one pod: those that come, and those that go.
type Exclusion struct {
	Pod      netip.Addr
	Put, Del []netip.Prefix
}

// rangeKey is the element of a pod and a range of addresses: the pod with the first one, and with
// the last. Ranges are far fewer than networks where all but some networks are excluded, and the
// kernel takes long to delete thousands.
func rangeKey(pod netip.Addr, r netipx.IPRange) string {
	return string(slices.Concat(pod.AsSlice(), r.From().AsSlice(), pod.AsSlice(), r.To().AsSlice()))
}

// rangeOf reads rangeKey. A range of several pods, or none at all, is not valid.
func rangeOf(key string) (pod netip.Addr, r netipx.IPRange) {
	size := len(key) / 4
	if size == 0 || len(key) != 4*size {
		return netip.Addr{}, netipx.IPRange{}
	}
	pod = keyAddr(key[:size])
	if pod != keyAddr(key[2*size:3*size]) {
		return pod, netipx.IPRange{}
	}
	return pod, netipx.IPRangeFrom(keyAddr(key[size:2*size]), keyAddr(key[3*size:]))
}

// ranges are the elements of a set of pods and ranges as the kernel lists them.
func ranges(list []nftables.SetElement) Elements {
	elements := make(Elements, len(list))
	for _, e := range list {
		end := e.KeyEnd
		if len(end) == 0 {
			end = e.Key
		}
		elements[string(e.Key)+string(end)] = ""
	}
	return elements
}

// Excluded returns what is excluded, of both families. A range that is none of ours is a network
// that is not valid, of its first pod.
func (c Content) Excluded() (Excluded, error) {
	builders := make(map[netip.Addr]*netipx.IPSetBuilder)
	found := make(Excluded)
	for _, set := range []string{rules.SetExcluded, rules.SetExcluded6} {
		for key := range c.Sets[set] {
			pod, r := rangeOf(key)
			if !r.IsValid() {
				found[pod] = append(found[pod], netip.Prefix{})
				continue
			}
			if builders[pod] == nil {
				builders[pod] = new(netipx.IPSetBuilder)
			}
			builders[pod].AddRange(r)
		}
	}
	for pod, b := range builders {
		set, err := b.IPSet()
		if err != nil {
			return nil, fmt.Errorf("read what is excluded for %v: %w", pod, err)
		}
		found[pod] = append(found[pod], set.Prefixes()...)
	}
	return found, nil
}

// Exclude changes what is excluded for pods, all of one family, in one transaction. A network to
// delete that is not there is no error; one that is not valid stands for what is none of ours.
func (d *Driver) Exclude(set string, changes []Exclusion) error {
	content, err := d.Observe()
	if err != nil {
		return err
	}
	present := make(map[netip.Addr]Elements, len(changes))
	for _, c := range changes {
		present[c.Pod] = Elements{}
	}
	for key := range content.Sets[set] {
		if pod, _ := rangeOf(key); present[pod] != nil {
			present[pod][key] = ""
		}
	}
	change := delta{set: set, put: Elements{}, del: Elements{}}
	for _, c := range changes {
		after, err := c.after(present[c.Pod])
		if err != nil {
			return err
		}
		del, put := difference(present[c.Pod], after)
		for key := range put {
			change.put[key] = ""
		}
		for key := range del {
			change.del[key] = ""
		}
	}
	return d.change(change)
}

// after are the elements of the pod once the change is made.
func (c Exclusion) after(before Elements) (Elements, error) {
	var b netipx.IPSetBuilder
	after := Elements{}
	for key := range before {
		if _, r := rangeOf(key); r.IsValid() {
			b.AddRange(r)
		} else if !slices.Contains(c.Del, netip.Prefix{}) {
			after[key] = ""
		}
	}
	for _, n := range c.Del {
		if n.IsValid() {
			b.RemovePrefix(n)
		}
	}
	for _, n := range c.Put {
		b.AddPrefix(n)
	}
	set, err := b.IPSet()
	if err != nil {
		return nil, fmt.Errorf("exclude networks for %v: %w", c.Pod, err)
	}
	for _, r := range set.Ranges() {
		after[rangeKey(c.Pod, r)] = ""
	}
	return after, nil
}
