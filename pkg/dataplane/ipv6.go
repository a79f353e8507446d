package dataplane

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"os"
	"slices"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/iptables"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/warning"
)

// kernelHasIPv6 reports whether the kernel has IPv6 at all.
func kernelHasIPv6() bool {
	_, err := os.Stat("/proc/net/if_inet6")
	return err == nil
}

// openIP6Tables opens the backends of iptables that are installed for IPv6, where the
// kernel has IPv6.
func openIP6Tables() map[Backend]*iptables.Driver {
	if !kernelHasIPv6() {
		return nil
	}
	return iptables.OpenIPv6()
}

// linkLocal6 and multicast6 never leave a link: nothing else of IPv6 works without them.
func linkLocal6() netip.Prefix { return netip.MustParsePrefix("fe80::/10") }
func multicast6() netip.Prefix { return netip.MustParsePrefix("ff00::/8") }

// mentionsIPv6 reports whether there is anything about IPv6 in a State.
func mentionsIPv6(s State) bool {
	return slices.ContainsFunc(s.Pods, func(p Pod) bool { return !p.IP.Is4() }) || s.Strict && len(masked6(s.Subnets)) > 0
}

// withIPv6 adds to what is inside in a State what is so on every host.
func withIPv6(s State) State {
	s.Inside = append(slices.Clone(s.Inside), linkLocal6(), multicast6())
	return s
}

// withoutIPv6 leaves out of a State what is about IPv6.
func withoutIPv6(s State) State {
	s.Inside, s.Subnets = masked4(s.Inside), masked4(s.Subnets)
	s.Pods = slices.DeleteFunc(slices.Clone(s.Pods), func(p Pod) bool { return p.IP.Is6() && !p.IP.Is4In6() })
	return s
}

// onlyIPv4 is what there is of IPv4.
func (f former) onlyIPv4() former {
	f.pods, f.locked = maps.Clone(f.pods), maps.Clone(f.locked)
	maps.DeleteFunc(f.pods, func(ip netip.Addr, _ uint32) bool { return !ip.Is4() })
	maps.DeleteFunc(f.locked, func(ip netip.Addr, _ struct{}) bool { return !ip.Is4() })
	return f
}

// errNoIP6Tables is why they are not, where our rules are in iptables.
var errNoIP6Tables = errors.New("there is no ip6tables on this host")

// prepareIPv6 decides whether this round has rules and sets for IPv6. In iptables there
// are none as long as the State does not need them.
func (r *round) prepareIPv6() {
	r.ipv6 = r.d.ipv6 && (r.members.table || mentionsIPv6(r.state))
	if r.ipv6 && !r.members.table && len(r.d.ip6tables) == 0 {
		r.ipv6 = false
		r.ipv6Err = errNoIP6Tables
	}
}

// aimed is the State without what this round cannot do about IPv6.
func (r *round) aimed() State {
	if r.ipv6 {
		return withIPv6(r.state)
	}
	return withoutIPv6(r.state)
}

// use6 returns the backends that our rules for IPv6 belong in: those of the other
// family, if they are there.
func (r *round) use6(use []Backend, observed kernel) []Backend {
	r.report.IPv6Locked = r.ipv6 && r.members.table
	if !r.ipv6 || r.members.table {
		return nil
	}
	var use6 []Backend
	for _, preferred := range [][]Backend{use, iptables.Backends()} {
		for _, b := range preferred {
			if _, readable := observed.rules6[b]; readable {
				use6 = append(use6, b)
			}
		}
		if len(use6) > 0 {
			break
		}
	}
	r.report.IPv6Locked = len(use6) > 0
	return use6
}

// warnIPv6 reports that the pods of a State which need it are not kept from leaving.
func (r *round) warnIPv6() {
	locked := slices.ContainsFunc(r.state.Pods, func(p Pod) bool { return !p.IP.Is4() && p.Kind != Node })
	if r.ipv6Err != nil && locked {
		r.warn(warning.IPv6(r.ipv6Err))
	}
}

// observeIP6Tables reads the rules for IPv6 of the backends of iptables. Where ours do
// not belong there, they are read once, for what is left of another configuration.
func observeIP6Tables(ctx context.Context, v view, k *kernel) {
	d := v.d
	if d.ip6tablesSeen == nil || v.ip6tables {
		d.ip6tablesSeen = map[Backend]iptables.Tables{}
		for b, driver := range d.ip6tables {
			tables, err := driver.Observe(ctx)
			switch {
			case err == nil:
				d.ip6tablesSeen[b] = tables
			case v.ip6tables:
				k.warnings = append(k.warnings, warning.IPv6(err))
			}
		}
	}
	maps.Copy(k.rules6, d.ip6tablesSeen)
}
