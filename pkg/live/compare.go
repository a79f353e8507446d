package live

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"go4.org/netipx"
)

// Verdict is how what a kernel has compares with what is meant.
type Verdict string

// The verdicts.
const (
	// OK: it is as meant.
	OK Verdict = "ok"
	// Missing: the kernel does not have it.
	Missing Verdict = "missing"
	// Foreign: what others have there decides, or stands in the way.
	Foreign Verdict = "foreign"
	// Stale: it is ours, and of something else, or of another time.
	Stale Verdict = "stale"
	// Unknown: it could not be read.
	Unknown Verdict = "unknown"
)

// Check is one thing that the packets of a pod depend on.
type Check struct {
	Host string `json:"host"`
	// Object is what was looked at.
	Object string `json:"object"`
	// Want is what is meant, Have what there is.
	Want    string  `json:"want"`
	Have    string  `json:"have"`
	Verdict Verdict `json:"verdict"`
}

// Kind is what should become of a pod's packets to the destination.
type Kind string

// The kinds.
const (
	// AsIs: they leave as without egress IPs.
	AsIs Kind = "AsIs"
	// Here: from the pod's own host, with Source.
	Here Kind = "Here"
	// ByOverlay: over the overlay to one of Via.
	ByOverlay Kind = "Overlay"
	// Dropped: they are dropped. Refused: the pod is told, too.
	Dropped Kind = "Dropped"
	Refused Kind = "Refused"
)

// Want is what one host should have.
type Want struct {
	// Host is its name, for reports.
	Host   string
	Sender *WantSender
	Egress *WantEgress
}

// WantSender is what the host of the pod should have.
type WantSender struct {
	Kind Kind
	// Source is the egress IP, of Here. NetID and Via are those of ByOverlay.
	Source netip.Addr
	NetID  uint32
	Via    []netip.Addr
	// Excluded are networks outside to which egress IPs do not apply, in any order.
	Excluded []netip.Prefix
	// Inside: the destination is inside. Past: it is in one of Excluded.
	Inside, Past bool
}

// WantEgress is what an egress host should have.
type WantEgress struct {
	EgressIP netip.Addr
	// Interface is the one that has it; empty if that is not known.
	Interface string
	// NetID is the network of the pod; From its host, invalid if that is the egress host itself.
	NetID uint32
	From  netip.Addr
	// Inside: the destination is inside.
	Inside bool
}

// Compare lists everything that the packets of the pod depend on at a host, in the order in which
// they meet it. What is nil in what the host has is unknown.
func Compare(want Want, have Host) []Check {
	c := checks{host: want.Host}
	overlay := false
	if want.Sender != nil {
		c.sender(*want.Sender, have.Sender)
		overlay = want.Sender.Kind == ByOverlay
	}
	if want.Egress != nil {
		c.egress(*want.Egress, have.Egress)
		overlay = overlay || want.Egress.From.IsValid()
	}
	if overlay {
		c.overlay(have.Overlay)
	}
	c.rules(have.Rules)
	for _, unread := range have.Unread {
		c.add(unread, "read", "not read", Unknown)
	}
	return c.list
}

// Differ returns the checks that are not in order.
func Differ(list []Check) []Check {
	return slices.DeleteFunc(slices.Clone(list), func(c Check) bool { return c.Verdict == OK })
}

// Unclear reports whether something is unknown, and nothing differs.
func Unclear(list []Check) bool {
	differ := Differ(list)
	return len(differ) > 0 && !slices.ContainsFunc(differ, func(c Check) bool { return c.Verdict != Unknown })
}

type checks struct {
	host string
	list []Check
}

func (c *checks) add(object, want, have string, v Verdict) {
	c.list = append(c.list, Check{Host: c.host, Object: object, Want: want, Have: have, Verdict: v})
}

// same adds a check of two texts: where they differ, the verdict is bad.
func (c *checks) same(object, want, have string, bad Verdict) {
	if want == have {
		bad = OK
	}
	c.add(object, want, have, bad)
}

// is adds a check of something that is there or is not.
func (c *checks) is(object string, want, have bool) {
	verdict := OK
	switch {
	case want && !have:
		verdict = Missing
	case have && !want:
		verdict = Stale
	}
	c.add(object, there(want), there(have), verdict)
}

func there(is bool) string {
	if is {
		return "there"
	}
	return "not there"
}

// OverlayName is the name of the overlay device.
const OverlayName = "egress0"

// overlay compares the device that leads to other hosts.
func (c *checks) overlay(have *Overlay) {
	if have == nil {
		c.add("device "+OverlayName, "there", "not read", Unknown)
		return
	}
	c.is("device "+OverlayName, true, have.Exists)
	if !have.Exists {
		return
	}
	c.same("state of "+OverlayName, "up", map[bool]string{true: "up", false: "down"}[have.Up], Foreign)
	c.is("the program at the egress of "+OverlayName, true, have.Outward)
	c.is("the program at the ingress of "+OverlayName, true, have.Inward)
	c.is("the next hop among the neighbours of "+OverlayName, true, have.NextHop)
	c.same("reverse path filter of "+OverlayName, "loose or none", filterText(have.Filter), Foreign)
}

// filterText says what a reverse path filter does.
func filterText(filter int) string {
	if filter == 1 {
		return "strict"
	}
	return "loose or none"
}

// rules adds what differs of what does not depend on the pod.
func (c *checks) rules(have Differences) {
	for _, missing := range have.Missing {
		c.add(missing, "there", "not there", Missing)
	}
	for _, foreign := range have.Foreign {
		c.add(foreign, "not there", "there, of others", Foreign)
	}
	for _, stale := range have.Stale {
		c.add(stale, "not there", "there", Stale)
	}
	if len(have.Missing)+len(have.Foreign)+len(have.Stale) == 0 {
		c.add("chains, policy rules and routes", "as meant by the agent", "as meant by the agent", OK)
	}
}

// text is where a packet goes, for people.
func (l Lookup) text() string {
	switch {
	case l.Error != "":
		return l.Error
	case l.Local:
		return "for the host itself"
	}
	text := "by " + orDash(l.Interface)
	if l.Gateway.IsValid() {
		text += fmt.Sprintf(" to gateway %v", l.Gateway)
	}
	return text
}

// prefixes names networks by the fewest that have the same addresses, in order: kernels keep them in
// other divisions.
func prefixes(list []netip.Prefix) string {
	var b netipx.IPSetBuilder
	for _, p := range list {
		b.AddPrefix(p)
	}
	set, err := b.IPSet()
	if err != nil {
		return err.Error()
	}
	return texts(set.Prefixes())
}

func texts[T fmt.Stringer](list []T) string {
	if len(list) == 0 {
		return "none"
	}
	all := make([]string, 0, len(list))
	for _, item := range list {
		all = append(all, item.String())
	}
	return strings.Join(all, ", ")
}

func orNone(ip netip.Addr) string {
	if !ip.IsValid() {
		return "no source"
	}
	return ip.String()
}

func orDash(s string) string { return cmp.Or(s, "-") }
