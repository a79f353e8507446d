package traffic

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/egressip-operator/egressip-operator/test/testbed"
)

// Pod is a pod that sends by one family of addresses: one that sends by both is two of these.
type Pod struct {
	Namespace, Node, Name string
	IPv6                  bool
}

func (p Pod) String() string {
	s := p.Namespace + "/" + p.Name + " on " + p.Node
	if p.IPv6 {
		s += ", by IPv6"
	}
	return s
}

// Seen is a packet that came to the bastion.
type Seen struct {
	testbed.Packet
	// Namespace whose port it was for; empty for none.
	Namespace string
	// Pod is the sender, and ID the line; zero if the payload does not say.
	Pod Pod
	ID  string
}

// Answered reports whether this is the line of a connection: the pod got an answer.
func (s Seen) Answered() bool { return s.Pod.Name != "" && strings.HasPrefix(s.ID, "C ") }

// String describes the packet for people.
func (s Seen) String() string {
	var what string
	switch s.Protocol {
	case unix.IPPROTO_TCP:
		what = "TCP " + flags(s.TCPFlags)
	case unix.IPPROTO_UDP:
		what = "UDP"
	case unix.IPPROTO_ICMP:
		what = "ICMP"
		if len(s.Payload) > 1 {
			what += fmt.Sprintf(" type %d code %d", s.Payload[0], s.Payload[1])
		}
	default:
		what = fmt.Sprintf("protocol %d", s.Protocol)
	}
	who := "no payload"
	if s.ID != "" {
		who = fmt.Sprintf("%q", s.ID)
	}
	return fmt.Sprintf("%s %s %s -> %s %s", s.At.Format("15:04:05.000"), what, s.Source, s.Destination, who)
}

func flags(set uint8) string {
	var names []string
	for i, name := range []string{"FIN", "SYN", "RST", "PSH", "ACK"} {
		if set&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return strings.Join(names, "+")
}

// Watch sees every packet that comes to the bastion.
type Watch struct {
	capture    *testbed.Capture
	namespaces map[uint16]string

	mu       sync.Mutex
	answered map[Pod][]Answer
}

// Answer is a connection that a pod got an answer to: when, and with which source.
type Answer struct {
	At     time.Time
	Source netip.Addr
}

// Gap is a time without a new answered connection of a pod.
type Gap struct {
	// From and Until bound it. Before and After are the sources of the connections that do;
	// invalid where there is none.
	From, Until   time.Time
	Before, After netip.Addr
}

// Length is how long the gap is.
func (g Gap) Length() time.Duration { return g.Until.Sub(g.From) }

// Within returns the part of the gap that is in another one; one without length if there
// is none.
func (g Gap) Within(other Gap) Gap {
	if g.From.Before(other.From) {
		g.From = other.From
	}
	if g.Until.After(other.Until) {
		g.Until = other.Until
	}
	if g.Until.Before(g.From) {
		return Gap{}
	}
	return g
}

// String says when the gap was, by the clock, and what changed in it.
func (g Gap) String() string {
	source := func(ip netip.Addr) string {
		if !ip.IsValid() {
			return "none"
		}
		return ip.String()
	}
	const clock = "15:04:05.000"
	return fmt.Sprintf("from %s to %s, source %s before and %s after", g.From.Format(clock), g.Until.Format(clock), source(g.Before), source(g.After))
}

// Start watches the bastion until Stop, and calls each for every packet that
// comes there.
func Start(ctx context.Context, c *testbed.Cluster, namespaces []Namespace, each func(Seen)) (*Watch, error) {
	w := &Watch{namespaces: map[uint16]string{}, answered: map[Pod][]Answer{}}
	for _, n := range namespaces {
		w.namespaces[n.Port], w.namespaces[n.Port+1] = n.Name, n.Name
	}
	var err error
	w.capture, err = c.Capture(ctx, testbed.Bastion, "eth0", func(p testbed.Packet) bool {
		if p.Outgoing || p.ARP != 0 {
			return false
		}
		s := w.read(p)
		if s.Answered() {
			w.mu.Lock()
			w.answered[s.Pod] = append(w.answered[s.Pod], Answer{s.At, s.Source.Addr()})
			w.mu.Unlock()
		}
		each(s)
		return false // looked at once, and forgotten: they are millions
	})
	return w, err
}

// Stop ends it; it fails where a packet was not seen.
func (w *Watch) Stop() error {
	_, err := w.capture.Stop()
	return err
}

// read finds out whose a packet is.
func (w *Watch) read(p testbed.Packet) Seen {
	s := Seen{Packet: p, Namespace: w.namespaces[p.Destination.Port()]}
	line, _, _ := strings.Cut(string(p.Payload), "\n")
	fields := strings.Fields(line)
	if s.Namespace == "" || len(fields) != 3 {
		return s
	}
	if names := strings.Split(fields[1], "/"); len(names) == 3 {
		s.ID = line
		s.Pod = Pod{Namespace: names[0], Node: names[1], Name: names[2], IPv6: p.Destination.Addr().Is6()}
	}
	return s
}

// Pods returns those that have had an answer since a time, sorted.
func (w *Watch) Pods(since time.Time) []Pod {
	w.mu.Lock()
	defer w.mu.Unlock()
	var pods []Pod
	for p, answers := range w.answered {
		if answers[len(answers)-1].At.After(since) {
			pods = append(pods, p)
		}
	}
	slices.SortFunc(pods, func(a, b Pod) int { return strings.Compare(a.String(), b.String()) })
	return pods
}

// Gaps returns the times without a new answered connection of a pod, of those times that
// overlap with from to until. A time that has not ended yet counts up to until.
func (w *Watch) Gaps(p Pod, from, until time.Time) []Gap {
	w.mu.Lock()
	defer w.mu.Unlock()
	return gaps(w.answered[p], from, until)
}

// gaps are the times between two answers, of those times that overlap with from to until.
func gaps(answers []Answer, from, until time.Time) []Gap {
	// The last before from begins the first gap.
	first := find(answers, from)
	last := Answer{At: from}
	if first > 0 {
		last = answers[first-1]
	}
	var all []Gap
	for _, a := range answers[first:] {
		all = append(all, Gap{From: last.At, Until: a.At, Before: last.Source, After: a.Source})
		last = a
		if a.At.After(until) {
			return all
		}
	}
	return append(all, Gap{From: last.At, Until: until, Before: last.Source})
}

// Longest returns the longest of gaps; one without length if there are none.
func Longest(gaps []Gap) (longest Gap) {
	for _, g := range gaps {
		if g.Length() > longest.Length() {
			longest = g
		}
	}
	return longest
}

// find returns the position of the first answer at a time or later.
func find(answers []Answer, at time.Time) int {
	position, _ := slices.BinarySearchFunc(answers, at, func(a Answer, at time.Time) int { return a.At.Compare(at) })
	return position
}

// Forget drops the answers before a time, and pods that have had none since.
func (w *Watch) Forget(before time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	maps.DeleteFunc(w.answered, func(p Pod, answers []Answer) bool {
		// One stays, for a gap that begins before.
		i := max(0, find(answers, before)-1)
		if i == len(answers)-1 && answers[i].At.Before(before.Add(-time.Minute)) {
			return true
		}
		w.answered[p] = slices.Clone(answers[i:])
		return false
	})
}
