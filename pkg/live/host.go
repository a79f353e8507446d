package live

import "net/netip"

// Host is what the kernel of a host has. A field that is nil was not asked for, or could not be
// read; Unread says what that was.
type Host struct {
	// Node is the name of the host, as its agent knows it.
	Node string `json:"node,omitempty"`
	// Backend holds the rules: nftables or iptables.
	Backend string   `json:"backend"`
	Sender  *Sender  `json:"sender,omitempty"`
	Egress  *Egress  `json:"egress,omitempty"`
	Overlay *Overlay `json:"overlay,omitempty"`
	// Rules are differences of what does not depend on the pod, each as one sentence: what the
	// agent last meant to be there, compared with what there is.
	Rules Differences `json:"rules"`
	// Unread is what could not be read, and why.
	Unread []string `json:"unread,omitempty"`
}

// Differences are chains, maps, policy rules and routes: those that are not there, those of
// others in places that are ours, and those of ours that should not be there.
type Differences struct {
	Missing []string `json:"missing,omitempty"`
	Foreign []string `json:"foreign,omitempty"`
	Stale   []string `json:"stale,omitempty"`
}

// Way is the way that a kernel gives the packets of a pod.
type Way string

// The ways.
const (
	// WayNode: as without egress IPs.
	WayNode Way = "Node"
	// WayHere: they leave here, with an egress IP of this host.
	WayHere Way = "Here"
	// WayOverlay: over the overlay, if there is a route for the pod there; else they are dropped.
	WayOverlay Way = "Overlay"
	// WayRefused: they are refused.
	WayRefused Way = "Refused"
	// WayUnclear: the sets and maps contradict each other.
	WayUnclear Way = "Unclear"
)

// Sender is what the host of a pod has for it.
type Sender struct {
	// Known: the pod is in set egress-pods, with Way. Source is what the rules give it, of
	// WayHere; invalid if they give none.
	Known  bool       `json:"known"`
	Way    Way        `json:"way,omitempty"`
	Mark   uint32     `json:"mark"`
	Source netip.Addr `json:"source,omitzero"`
	// Locked: the pod is in set egress-locked.
	Locked bool `json:"locked"`
	// Excluded are networks outside to which the pod's packets leave as without egress IPs.
	Excluded []netip.Prefix `json:"excluded,omitempty"`
	// Interface leads to the pod. BoundTo is the link that may send with the pod's address; empty
	// if it is bound to none.
	Interface string `json:"interface,omitempty"`
	BoundTo   string `json:"boundTo,omitempty"`
	// Route is the pod's entry in the map of the overlay; nil for none.
	Route *Route `json:"route,omitempty"`
	// Via are the ways to the egress hosts that were asked for.
	Via []Neighbour `json:"via,omitempty"`
	// Inside: the destination is inside, by set egress-inside.
	Inside bool `json:"inside"`
	// Out is where the kernel would send a packet of the pod to the destination, with Mark.
	Out Lookup `json:"out"`
}

// Route is where the overlay carries a pod's packets.
type Route struct {
	NetID uint32       `json:"netid"`
	Via   []netip.Addr `json:"via"`
}

// Neighbour is another host.
type Neighbour struct {
	Host netip.Addr `json:"host"`
	// Listed: it is in set egress-hosts.
	Listed bool `json:"listed"`
	// Out is where the kernel would send the outer packets.
	Out Lookup `json:"out"`
}

// Lookup is what the kernel answers about the route of a packet.
type Lookup struct {
	Interface string     `json:"interface,omitempty"`
	Gateway   netip.Addr `json:"gateway,omitzero"`
	Table     int        `json:"table,omitempty"`
	// Local: it is for the host itself.
	Local bool `json:"local,omitempty"`
	// Error is why the packet is dropped; empty if it is not. Filtered: by the reverse path
	// filter.
	Error    string `json:"error,omitempty"`
	Filtered bool   `json:"filtered,omitempty"`
}

// Overlay is the device that leads to other hosts.
type Overlay struct {
	Exists bool `json:"exists"`
	Up     bool `json:"up"`
	MTU    int  `json:"mtu,omitempty"`
	// Outward and Inward: the programs are at its two hooks.
	Outward bool `json:"outward"`
	Inward  bool `json:"inward"`
	// NextHop: the neighbour is there that all packets go to.
	NextHop bool `json:"nextHop"`
	// Filter is its reverse path filter, as it takes effect: 0 for none, 1 strict, 2 loose. It
	// must be loose.
	Filter int `json:"reversePathFilter"`
}

// Egress is what an egress host has for an egress IP and a network.
type Egress struct {
	// Served: packets of the network that come over the overlay get Mark. Source is what the
	// rules give these; invalid if nothing.
	Served bool       `json:"served"`
	Mark   uint32     `json:"mark"`
	Source netip.Addr `json:"source,omitzero"`
	// Index: the rules give the egress IP to packets with OwnMark, whether the network is served
	// or not.
	Index   bool   `json:"index"`
	OwnMark uint32 `json:"ownMark"`
	// Addresses are where it stands.
	Addresses []Address `json:"addresses,omitempty"`
	// Listed: it is in set egress-ips.
	Listed bool `json:"listed"`
	// Sender: the host of the pod is in set egress-hosts.
	Sender bool `json:"sender"`
	// Guards are at the interfaces that have one.
	Guards []Guard `json:"guards,omitempty"`
	// Returns is where answers to the pod go, as learned from its packets; nil if none has come.
	Returns *Route `json:"returns,omitempty"`
	// Inside: the destination is inside, by set egress-inside.
	Inside bool `json:"inside"`
	// Out is where the kernel would send a packet of the pod that came over the overlay, with its
	// mark. Back is what it would do with the answer, at the interface that Out names.
	Out  Lookup `json:"out"`
	Back Lookup `json:"back"`
}

// Address is an egress IP on an interface.
type Address struct {
	Interface string `json:"interface"`
	Up        bool   `json:"up"`
	// Ours: it has the mark of ownership.
	Ours bool `json:"ours"`
}

// Guard is what the guard at an interface does with an egress IP.
type Guard struct {
	Interface string `json:"interface"`
	// Known: it is in the guard's map, with Mark. Elsewhere: it may not leave by this interface.
	Known     bool   `json:"known"`
	Mark      uint32 `json:"mark"`
	Elsewhere bool   `json:"elsewhere,omitempty"`
}
