package dataplane

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/address"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/bpf"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/conntrack"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/ipset"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/iptables"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/nftables"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/overlay"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/routing"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/rules"
)

// kind is one kind of kernel object that is ours.
//
// A function may be nil: observe where Apply ensures the objects as a whole and
// compares nothing, list and remove where the objects go with those of another
// kind.
type kind struct {
	// object and mark are a row of the ownership table in docs/design.md: what the
	// object is, and how a restarted agent knows that it is ours.
	object, mark string
	// observe reads what is there into the kernel that Apply compares with a State.
	// What is there and not wanted is removed, in the order of changes.
	observe func(context.Context, view, *kernel) error
	// list describes what is there, one object in each string. It changes nothing.
	list func(context.Context, *Dataplane) ([]string, error)
	// remove removes what is there and keeps what is not ours. It gets the kernel as
	// it was before anything was removed.
	remove func(context.Context, *Dataplane, kernel) error
}

// inventory lists all kinds of kernel objects that are ours, in the order in which
// they are removed: the reverse of the order in which they are made. What sends
// packets our way goes before what carries them.
//
// Apply, Cleanup and Leftovers, and the ownership table in docs/design.md, are
// driven by this list: a new kind of kernel object is an entry here.
func inventory() []kind {
	return []kind{
		{
			object:  "iptables chain",
			mark:    "name begins with `" + rules.ChainPrefix + "`; of other chains, the jumps to these, in both backends",
			observe: observeRules, list: listRules, remove: removeRules,
		},
		{
			object:  "nftables table",
			mark:    "name `" + nftables.Name + "`, family inet, with all that is in it",
			observe: observeTable, list: listTable,
			remove: func(_ context.Context, d *Dataplane, _ kernel) error {
				_, err := d.nft.Remove()
				return err
			},
		},
		{
			object:  "nftables tables of links",
			mark:    "names `" + nftables.Name + "`, family bridge, and `" + nftables.LinksName + "`, family inet, with all that is in them",
			observe: observeLinks,
			list: func(_ context.Context, d *Dataplane) ([]string, error) {
				content, err := d.nft.ObserveLinks()
				return content.List(), err
			},
			remove: func(_ context.Context, d *Dataplane, _ kernel) error {
				_, err := d.nft.RemoveLinks()
				return err
			},
		},
		{
			object: "`ip rule`",
			mark:   "of IPv4 and IPv6, protocol 77 and table local, 2000, 2001 or 77000 to 77015, at priorities 84, 85, 89 to 91 and 93; protocol 77 at 82, 88 and 92, by which the host's own packets and those of `egress0` go past the others",
			list:   func(_ context.Context, d *Dataplane) ([]string, error) { return routing.ListRules(d.nl) },
			remove: func(_ context.Context, d *Dataplane, _ kernel) error {
				_, err := routing.RemoveRules(d.nl)
				return err
			},
		},
		{
			object: "route",
			mark:   "of IPv4 and IPv6, protocol 77 in tables 2000, 2001 and 77000 to 77015; where others use these tables, the status says so; of IPv6, that concerns IPv6 alone",
			list:   func(context.Context, *Dataplane) ([]string, error) { return routing.ListRoutes() },
			remove: func(_ context.Context, d *Dataplane, _ kernel) error {
				_, err := routing.RemoveRoutes(d.nl)
				return err
			},
		},
		{
			object: "reverse path filter of an interface that egress IPs leave by and that is not the uplink",
			mark:   "it is loose (2), and a policy rule without action, of protocol 77 at priority 78 or 79, names the interface, and has its index as mark: it was 0 or 1 before",
			list:   func(_ context.Context, d *Dataplane) ([]string, error) { return listFilters(d.nl) },
			remove: func(_ context.Context, d *Dataplane, _ kernel) error { return d.loosened.removeAll(d.nl) },
		},
		{
			object: "device",
			mark:   "name `" + overlay.Name + "`, VXLAN with external metadata",
			list: func(_ context.Context, d *Dataplane) ([]string, error) {
				link, err := overlay.Find(d.nl)
				if err != nil || link == nil {
					return nil, err
				}
				return []string{"device " + overlay.Name}, nil
			},
			remove: func(_ context.Context, d *Dataplane, _ kernel) error {
				_, err := overlay.Remove(d.nl)
				return err
			},
		},
		{
			object: "tc programs",
			mark:   "clsact of `" + overlay.Name + "`; they go with the device",
		},
		{
			object: "guard",
			mark: "program `" + bpf.GuardName + "` with map `egress_guarded`, of TCX at the egress of the uplink, of the default route's interface and of others with egress IPs; " +
				"before Linux 6.6 a filter of that name, preference 77, handle 0x77; the clsact qdisc stays where others use it",
			list: func(_ context.Context, d *Dataplane) ([]string, error) {
				devices, err := bpf.ListGuards(d.nl)
				return describe("tc program "+bpf.GuardName+" at %s", devices), err
			},
			remove: func(_ context.Context, d *Dataplane, _ kernel) error { return bpf.RemoveGuards(d.nl) },
		},
		{
			object: "tracked connections",
			mark:   "not ours; those of pods whose path changes are deleted, and those to an egress IP from before the host had it",
			remove: endConnections,
		},
		{
			object:  "egress IP on an interface",
			mark:    "label `<interface>:eip`; or /32 with scope nowhere, from which a rename takes the label's suffix; of IPv6, metric 1000000077",
			observe: observeAddresses, list: listAddresses, remove: removeAddresses,
		},
		{
			object:  "ipset",
			mark:    "one of these names: " + setNames(),
			observe: observeSets,
			list: func(context.Context, *Dataplane) ([]string, error) {
				names, err := presentSets()
				return describe("ipset %s", names), err
			},
			remove: func(_ context.Context, d *Dataplane, _ kernel) error {
				_, err := destroySets(d.nl)
				return err
			},
		},
		{
			object:  "BPF map",
			mark:    "pinned as `egress_*` in one directory, `" + defaultPinDir + "`",
			observe: observeMaps,
			list: func(_ context.Context, d *Dataplane) ([]string, error) {
				paths, err := bpf.PinnedMaps(d.cfg.PinDir)
				return describe("BPF map %s", paths), err
			},
			remove: func(_ context.Context, d *Dataplane, _ kernel) error {
				_, err := bpf.RemoveMaps(d.cfg.PinDir)
				return err
			},
		},
		{
			object: "bits of the packet's and the connection's mark",
			mark:   "those of `--mark-mask`",
		},
	}
}

func setNames() string {
	var names []string
	for _, s := range ourSets() {
		names = append(names, "`"+s.Name+"`")
	}
	return strings.Join(names, ", ")
}

// describe puts each name into a format.
func describe(format string, names []string) []string {
	list := make([]string, 0, len(names))
	for _, name := range names {
		list = append(list, fmt.Sprintf(format, name))
	}
	return list
}

// view is what an observation depends on.
type view struct {
	d *Dataplane
	// placeFor says which interface an egress IP belongs on, if that is known; nil while the
	// uplink is not.
	placeFor func(netip.Addr) (address.Uplink, bool)
	// hosted are the egress IPs that belong on the uplink.
	hosted []netip.Addr
	// table: members of sets are in the table of our own, and what ipsets hold is
	// left of a backend that was used before.
	table bool
	// ip6tables: our rules for IPv6 belong into iptables.
	ip6tables bool
	// serve6: egress IPs of IPv6 are served.
	serve6 bool
}

// observe reads what there is of ours in the kernel. What cannot be read is
// reported, and absent.
func observe(ctx context.Context, v view) (kernel, error) {
	k := emptyKernel()
	var errs []error
	for _, kind := range inventory() {
		if kind.observe != nil {
			errs = append(errs, kind.observe(ctx, v, &k))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return k, fmt.Errorf("observe the kernel: %w", err)
	}
	return k, nil
}

func observeRules(ctx context.Context, v view, k *kernel) error {
	seen, warnings, problem := v.d.observeIPTables(ctx, v.table)
	maps.Copy(k.rules, seen)
	k.warnings, k.problem = append(k.warnings, warnings...), problem
	observeIP6Tables(ctx, v, k)
	return nil
}

func listRules(ctx context.Context, d *Dataplane) (list []string, err error) {
	var errs []error
	for _, f := range []struct {
		family  iptables.Family
		drivers map[Backend]*iptables.Driver
	}{{iptables.IPv4, d.iptables}, {iptables.IPv6, d.ip6tables}} {
		for _, b := range iptables.Backends() {
			driver, installed := f.drivers[b]
			if !installed {
				continue
			}
			tables, err := d.readRules(ctx, b, driver)
			if errors.Is(err, nftables.ErrAbsent) {
				continue // nothing is there
			}
			errs = append(errs, err)
			list = append(list, iptables.ListOwn(b, f.family, tables)...)
		}
	}
	return list, errors.Join(errs...)
}

// removeRules removes marks first, then what they mean: the reverse of the order in
// which rules are made.
func removeRules(ctx context.Context, d *Dataplane, observed kernel) error {
	var errs []error
	if d.iptablesErr != nil {
		if names, err := presentSets(); err != nil || len(names) > 0 {
			errs = append(errs, err, fmt.Errorf("chains that use ipsets %v may remain: %w", names, d.iptablesErr))
		}
	}
	for _, name := range slices.Backward(rules.Stages()) {
		for _, b := range iptables.Backends() {
			t := iptables.Plan(name, observed.rules[b][name], iptables.RenderedTable{})
			if _, installed := d.iptables[b]; installed && t.Changes > 0 {
				errs = append(errs, d.iptables[b].Commit(ctx, t))
			}
			t6 := iptables.Plan(name, observed.rules6[b][name], iptables.RenderedTable{})
			if _, installed := d.ip6tables[b]; installed && t6.Changes > 0 {
				errs = append(errs, d.ip6tables[b].Commit(ctx, t6))
			}
		}
	}
	return errors.Join(errs...)
}

// endConnections deletes connections that had a path of ours: they cannot go on
// without it.
func endConnections(_ context.Context, d *Dataplane, observed kernel) error {
	known, _ := knownIndices(d.cfg.Marks, observed)
	gone := newStaleness(d.cfg.Marks, observed.withFormer(), kernel{}, known, nil)
	if len(gone.freed)+len(gone.ended)+len(gone.withdrawn) == 0 {
		return nil
	}
	_, err := conntrack.Delete(gone.stale)
	return err
}

// observeAddresses leaves out an address that is wanted and not where it belongs: it
// must be added there. Without an uplink, addresses stay where they are.
func observeAddresses(_ context.Context, v view, k *kernel) error {
	own, err := address.Own(v.d.nl)
	for ip, addrs := range own {
		there := v.placeFor == nil || !slices.Contains(v.hosted, ip)
		if !there {
			place, known := v.placeFor(ip)
			there = !known || place.Placed(addrs)
		}
		if there {
			k.addresses[ip] = struct{}{}
		}
	}
	return err
}

func listAddresses(_ context.Context, d *Dataplane) (list []string, err error) {
	own, err := address.Own(d.nl)
	for _, ip := range sortedAddrs(own) {
		for _, a := range own[ip] {
			mark := "label " + a.Label
			if ip.Is6() {
				mark = fmt.Sprintf("metric %d", address.Metric)
			}
			list = append(list, fmt.Sprintf("address %v, %s", address.Prefix(a), mark))
		}
	}
	return list, err
}

func removeAddresses(_ context.Context, d *Dataplane, _ kernel) error {
	own, err := address.Own(d.nl)
	errs := []error{err}
	for _, ip := range sortedAddrs(own) {
		errs = append(errs, address.Delete(d.nl, own[ip]))
	}
	return errors.Join(errs...)
}

func observeSets(_ context.Context, v view, k *kernel) error {
	if v.table {
		names, err := presentSets()
		if err != nil || len(names) == 0 {
			return err
		}
		k.former.ipsets = names
		pods, errPods := podsInSet(v.d.cfg.Marks)
		k.former.pods = pods
		return errors.Join(errPods, addressesInSet(setLocked, k.former.locked), addressesInSet(setLocked6, k.former.locked))
	}
	pods, err := podsInSet(v.d.cfg.Marks)
	errs := []error{err}
	k.pods = pods
	for _, set := range []struct {
		name string
		to   map[netip.Addr]struct{}
	}{{setLocked, k.locked}, {setLocked6, k.locked}, {setHosts, k.hosts}, {setHosts6, k.hosts}, {setIPs, k.ips}, {setIPs6, k.ips}} {
		errs = append(errs, addressesInSet(set.name, set.to))
	}
	for _, set := range []string{setInside, setInside6} {
		inside, err := ipset.List(set)
		errs = append(errs, err)
		for entry := range inside {
			k.inside[entry] = struct{}{}
		}
	}
	excluded, err := excludedInSets()
	k.excluded = excluded
	return errors.Join(append(errs, err)...)
}

// addressesInSet adds the addresses of an ipset to others.
func addressesInSet(name string, to map[netip.Addr]struct{}) error {
	entries, err := ipset.List(name)
	for entry := range entries {
		to[entry.Addr()] = struct{}{}
	}
	return err
}

// podsInSet reads the pods of the ipsets, and their marks.
func podsInSet(m Marks) (map[netip.Addr]uint32, error) {
	entries, err := ipset.List(setPods)
	entries6, err6 := ipset.List(setPods6)
	pods := make(map[netip.Addr]uint32, len(entries)+len(entries6))
	for _, list := range []ipset.Entries{entries, entries6} {
		for entry, value := range list {
			if value.Mask != m.Mask {
				value.Mark = ^uint32(0) // of another configuration: none that is wanted
			}
			pods[entry.Addr()] = value.Mark
		}
	}
	return pods, errors.Join(err, err6)
}

// observeMaps reads the maps where they are open.
func observeMaps(_ context.Context, v view, k *kernel) error {
	if v.d.maps == nil {
		return nil
	}
	routes, err1 := v.d.maps.Routes()
	served, err2 := v.d.maps.Hosted()
	k.routes, k.served = routes, served
	return errors.Join(err1, err2)
}
