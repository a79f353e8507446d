package dataplane

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/overlay"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/sysctl"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/warning"
)

// kernelHasIPv6 reports whether the kernel has IPv6 at all.
func kernelHasIPv6() bool {
	_, err := os.Stat("/proc/net/if_inet6")
	return err == nil
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
	six := func(h Hosted) bool { return h.IP.Is6() }
	s.Hosted, s.Standby = slices.DeleteFunc(slices.Clone(s.Hosted), six), slices.DeleteFunc(slices.Clone(s.Standby), six)
	s.Hosts, _ = splitHosts(s.Hosts)
	s.Pods = slices.DeleteFunc(slices.Clone(s.Pods), func(p Pod) bool { return p.IP.Is6() && !p.IP.Is4In6() })
	return s
}

// splitHosts returns the hosts of either family. Where all are of IPv4, as in most clusters,
// that is the list itself.
func splitHosts(hosts []netip.Addr) (four, six []netip.Addr) {
	if !slices.ContainsFunc(hosts, netip.Addr.Is6) {
		return hosts, nil
	}
	return only(hosts, netip.Addr.Is4), only(hosts, netip.Addr.Is6)
}

// onlyIPv4 is what there is of IPv4.
func (f former) onlyIPv4() former {
	f.pods, f.locked = maps.Clone(f.pods), maps.Clone(f.locked)
	maps.DeleteFunc(f.pods, func(ip netip.Addr, _ uint32) bool { return !ip.Is4() })
	maps.DeleteFunc(f.locked, func(ip netip.Addr, _ struct{}) bool { return !ip.Is4() })
	return f
}

// serve6 is what was found out about egress IPs of IPv6.
type serve6 struct {
	// wanted: a State of this process had such egress IPs, or pods that use one. Maps,
	// routes and rules for them are there from then on.
	wanted bool
	// maps says whether there are maps and programs, rules whether the kernel can hold the
	// rules.
	maps, rules attempt
}

// attempt is what the kernel may refuse. It may do so for want of memory, or because a module
// is not loaded, so that it is tried again after a while. The zero value has not been tried.
type attempt struct {
	tried bool
	// err is why it failed at the time at.
	err error
	at  time.Duration
}

// againAfter is how long a refusal of the kernel holds.
const againAfter = time.Minute

// made is an attempt that was made just now.
func made(err error) attempt {
	if err != nil {
		err = fmt.Errorf("%w (it is tried again every minute)", err)
	}
	return attempt{tried: true, err: err, at: monotonic()}
}

// due reports whether it must be tried.
func (a attempt) due() bool { return !a.tried || a.err != nil && monotonic()-a.at >= againAfter }

// usesIPv6 reports whether a State has egress IPs of IPv6, or pods that use one, or the overlay
// is over IPv6.
func usesIPv6(s State) bool {
	six := func(h Hosted) bool { return h.IP.Is6() }
	return s.overIPv6() || slices.ContainsFunc(s.Hosted, six) || slices.ContainsFunc(s.Standby, six) ||
		slices.ContainsFunc(s.Pods, func(p Pod) bool { return p.IP.Is6() && (p.Kind == Local || p.Kind == Remote) })
}

// Reasons why a host does not serve egress IPs of IPv6.
var (
	errNoKernelIPv6  = errors.New("the kernel has no IPv6")
	errOnlyIPv6      = errors.New("the host's address is one of IPv6, so it has egress IPs of IPv6 only")
	errNoIPv6Forward = errors.New("the host does not forward IPv6 (net.ipv6.conf.all.forwarding is not 1)")
	errIPv6MTU       = errors.New("IPv6 needs an MTU of 1280 inside the overlay")
	errNoOverlayIPv6 = errors.New("IPv6 is disabled on " + overlayName + " (net.ipv6.conf." + overlayName + ".disable_ipv6, which new devices take from net.ipv6.conf.default)")
)

// prepareIPv6 decides whether this round has rules and sets for IPv6, and whether it serves
// egress IPs of it. In iptables there are none as long as the State does not need them.
func (r *round) prepareIPv6() {
	r.ipv6 = r.d.ipv6 && (r.members.table || r.d.serve6.wanted || mentionsIPv6(r.state))
	if r.ipv6 && !r.members.table && len(r.d.ip6tables) == 0 {
		r.ipv6 = false
		r.ipv6Err = errNoIP6Tables
	}
}

// prepareServe6 decides whether this round serves egress IPs of IPv6, once the uplink is
// known, and reports what the host could do.
func (r *round) prepareServe6() {
	r.serve6, r.report.IPv6 = false, IPv6Report{}
	why, err := r.whyNotIPv6()
	if why == nil && err == nil && r.uplinkErr == nil {
		r.report.IPv6.Networks, err = r.uplink.Networks6(r.d.nl)
		r.report.IPv6.Known = err == nil
	}
	if err != nil {
		r.errs = append(r.errs, err)
	}
	if why == nil {
		r.serve6, r.overErr = r.d.serve6.wanted, nil
	} else {
		r.cannotServe6(why)
	}
	for _, h := range r.state.Hosted {
		if h.IP.Is4() && r.state.overIPv6() {
			r.unusable[h.IP] = errOnlyIPv6
		}
	}
}

// cannotServe6 has this round not serve egress IPs of IPv6.
func (r *round) cannotServe6(why error) {
	r.serve6, r.overErr = false, nil
	r.report.IPv6 = IPv6Report{Known: true, Reason: why.Error()}
	if r.state.overIPv6() {
		r.overErr = why
	}
	for _, h := range r.state.Hosted {
		if h.IP.Is6() && r.d.serve6.wanted {
			r.unusable[h.IP] = why
		}
	}
}

// whyNotIPv6 is why the host cannot serve egress IPs of IPv6; nil if it can. err is why
// that is not known: then it goes on as before.
func (r *round) whyNotIPv6() (why, err error) {
	d := r.d
	switch {
	case !d.ipv6:
		return errNoKernelIPv6, nil
	case !r.members.table && len(d.ip6tables) == 0:
		return errNoIP6Tables, nil
	case d.serve6.maps.err != nil:
		return d.serve6.maps.err, nil
	case r.uplinkErr == nil && r.overlayMTU() < overlay.MinIPv6MTU:
		return fmt.Errorf("%w: %s has %d, which leaves %d", errIPv6MTU, r.uplink.Name, r.uplink.MTU, r.overlayMTU()), nil
	}
	if err := settingsAgainstIPv6(sysctl.Get); err != nil {
		return err, nil
	}
	if r.members.table {
		if err := d.supported6(r.ruleParams(nil, r.state)); err != nil {
			return err, nil
		}
	}
	return d.routed.inUse6(d.nl)
}

// settingsAgainstIPv6 is what in the kernel's settings keeps a host from serving egress IPs of
// IPv6; nil if nothing does. get reads a setting. Before the overlay is made, its settings are
// not there.
func settingsAgainstIPv6(get func(path string) (string, error)) error {
	forwards, err := get(sysctl.IPv6Forward)
	switch {
	case err != nil:
		return err
	case forwards == "0":
		return errNoIPv6Forward
	}
	disabled, err := get(sysctl.OfDevice6(overlayName, "disable_ipv6"))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case disabled != "0":
		return errNoOverlayIPv6
	}
	return nil
}

// aimed is the State without what this round cannot do about IPv6.
func (r *round) aimed() State {
	s := r.state
	if r.excludedErr != nil {
		s = withoutExcluded(s)
	}
	if !r.ipv6 {
		return withoutIPv6(s)
	}
	s = withIPv6(s)
	if r.serve6 {
		return s
	}
	// No set but that of what is inside has hosts of IPv6 then.
	four, others := splitHosts(s.Hosts)
	for _, h := range others {
		s.Inside = append(s.Inside, netip.PrefixFrom(h, h.BitLen()))
	}
	s.Hosts = four
	six := func(h Hosted) bool { return h.IP.Is6() }
	s.Hosted = slices.DeleteFunc(slices.Clone(s.Hosted), six)
	s.Standby = slices.DeleteFunc(slices.Clone(s.Standby), six)
	s.Pods = slices.Clone(s.Pods)
	for i, p := range s.Pods {
		if p.IP.Is6() && !p.IP.Is4In6() && p.Kind != Node {
			s.Pods[i] = Pod{IP: p.IP, Kind: closed, Excluded: p.Excluded}
		}
	}
	return s
}

// warnIPv6 reports that the pods of a State which need it are not kept from leaving, and that
// those which have egress IPs of IPv6 are dropped.
func (r *round) warnIPv6() {
	locked := slices.ContainsFunc(r.state.Pods, func(p Pod) bool { return !p.IP.Is4() && p.Kind != Node })
	if r.ipv6Err != nil && locked {
		r.warnOfPods(warning.IPv6(r.ipv6Err))
	}
	uses := func(p Pod) bool { return p.IP.Is6() && (p.Kind == Local || p.Kind == Remote) }
	if why := r.report.IPv6.Reason; why != "" && slices.ContainsFunc(r.state.Pods, uses) {
		r.warnOfPods(warning.NoIPv6(why))
	}
}
