package live

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// MaxVia is the greatest number of egress hosts in a Query.
const MaxVia = 8

// Query asks a host what its kernel has for the packets of one pod.
type Query struct {
	// Pod is an address of the pod.
	Pod netip.Addr
	// To is the destination of its packets, of the same family.
	To netip.Addr
	// Sender asks what the host has as that of the pod. Via are the egress hosts that its packets
	// should go to.
	Sender bool
	Via    []netip.Addr
	// EgressIP asks what the host has for packets of network NetID that leave with it, if it is
	// valid. From is the host of the pod, invalid if that is the host itself.
	EgressIP netip.Addr
	NetID    uint32
	From     netip.Addr
}

// Somewhere is a destination outside of a family, in a network for documentation (RFC 5737 and
// 3849): no machine has it.
func Somewhere(pod netip.Addr) netip.Addr {
	if pod.Is4() {
		return netip.AddrFrom4([4]byte{203, 0, 113, 1})
	}
	return netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, 15: 1})
}

// Values writes a query as the parameters of a URL.
func (q Query) Values() url.Values {
	v := url.Values{"pod": {q.Pod.String()}, "to": {q.To.String()}}
	if q.Sender {
		v.Set("sender", "true")
	}
	for _, via := range q.Via {
		v.Add("via", via.String())
	}
	if q.EgressIP.IsValid() {
		v.Set("egressIP", q.EgressIP.String())
		v.Set("netid", strconv.FormatUint(uint64(q.NetID), 10))
	}
	if q.From.IsValid() {
		v.Set("from", q.From.String())
	}
	return v
}

// ParseQuery reads what Values wrote. The error names the parameter.
func ParseQuery(v url.Values) (q Query, err error) {
	var errs []error
	address := func(name string, to *netip.Addr, must bool) {
		if !v.Has(name) && !must {
			return
		}
		ip, err := netip.ParseAddr(v.Get(name))
		if err != nil || ip.Zone() != "" || ip.Is4In6() {
			errs = append(errs, fmt.Errorf("parameter %s=%q is no address: give one such as 10.244.1.5", name, v.Get(name)))
			return
		}
		*to = ip
	}
	address("pod", &q.Pod, true)
	address("to", &q.To, v.Has("to"))
	address("egressIP", &q.EgressIP, false)
	address("from", &q.From, false)
	q.Sender = v.Get("sender") == "true"
	if len(v["via"]) > MaxVia {
		errs = append(errs, fmt.Errorf("parameter via: %d egress hosts, of %d at most", len(v["via"]), MaxVia))
	} else {
		for _, written := range v["via"] {
			ip, err := netip.ParseAddr(written)
			if err != nil {
				errs = append(errs, fmt.Errorf("parameter via=%q is no address", written))
			}
			q.Via = append(q.Via, ip)
		}
	}
	if v.Has("netid") {
		id, err := strconv.ParseUint(v.Get("netid"), 10, 24)
		if err != nil {
			errs = append(errs, fmt.Errorf("parameter netid=%q is no network identifier: give a number below 2^24", v.Get("netid")))
		}
		q.NetID = uint32(id)
	}
	if err := errors.Join(errs...); err != nil {
		return Query{}, errors.New(strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	if !q.To.IsValid() {
		q.To = Somewhere(q.Pod)
	}
	if q.To.Is4() != q.Pod.Is4() || q.EgressIP.IsValid() && q.EgressIP.Is4() != q.Pod.Is4() {
		return Query{}, errors.New("parameters pod, to and egressIP are addresses of two families: give those of one")
	}
	return q, nil
}
