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

// Pod is a pod that sends.
type Pod struct{ Namespace, Node, Name string }

func (p Pod) String() string { return p.Namespace + "/" + p.Name + " on " + p.Node }

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
	answered map[Pod][]time.Time
	last     map[Pod]netip.Addr
}

// Start watches the bastion until Stop, and calls each for every packet that
// comes there.
func Start(ctx context.Context, c *testbed.Cluster, namespaces []Namespace, each func(Seen)) (*Watch, error) {
	w := &Watch{namespaces: map[uint16]string{}, answered: map[Pod][]time.Time{}, last: map[Pod]netip.Addr{}}
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
			w.answered[s.Pod] = append(w.answered[s.Pod], s.At)
			w.last[s.Pod] = s.Source.Addr()
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
		s.Pod = Pod{Namespace: names[0], Node: names[1], Name: names[2]}
	}
	return s
}

// Pods returns those that have had an answer since a time, sorted.
func (w *Watch) Pods(since time.Time) []Pod {
	w.mu.Lock()
	defer w.mu.Unlock()
	var pods []Pod
	for p, times := range w.answered {
		if times[len(times)-1].After(since) {
			pods = append(pods, p)
		}
	}
	slices.SortFunc(pods, func(a, b Pod) int { return strings.Compare(a.String(), b.String()) })
	return pods
}

// Last returns when a pod had its last answer, and with which source.
func (w *Watch) Last(p Pod) (time.Time, netip.Addr) {
	w.mu.Lock()
	defer w.mu.Unlock()
	times := w.answered[p]
	if len(times) == 0 {
		return time.Time{}, netip.Addr{}
	}
	return times[len(times)-1], w.last[p]
}

// Outage returns the longest time without a new answered connection of a pod,
// of those times that overlap with from to until. A time that has not ended yet
// counts up to until.
func (w *Watch) Outage(p Pod, from, until time.Time) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return Longest(w.answered[p], from, until)
}

// Longest is the longest gap between two times, of those gaps that overlap with
// from to until.
func Longest(times []time.Time, from, until time.Time) time.Duration {
	// The last before from begins the first gap.
	first, _ := slices.BinarySearchFunc(times, from, time.Time.Compare)
	last := from
	if first > 0 {
		last = times[first-1]
	}
	var longest time.Duration
	for _, t := range times[first:] {
		longest = max(longest, t.Sub(last))
		last = t
		if t.After(until) {
			return longest
		}
	}
	return max(longest, until.Sub(last))
}

// Forget drops the answers before a time, and pods that have had none since.
func (w *Watch) Forget(before time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	maps.DeleteFunc(w.answered, func(p Pod, times []time.Time) bool {
		i, _ := slices.BinarySearchFunc(times, before, time.Time.Compare)
		// One stays, for a gap that begins before.
		i = max(0, i-1)
		if i == len(times)-1 && times[i].Before(before.Add(-time.Minute)) {
			delete(w.last, p)
			return true
		}
		w.answered[p] = slices.Clone(times[i:])
		return false
	})
}
