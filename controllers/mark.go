package controllers

import (
	"cmp"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
)

// errDeposed is why a controller stops that found a later writer of claims.
var errDeposed = errors.New("another controller writes claims")

// lastEpoch is the greatest number of a term. A mark with a greater one, which only a
// person can have written, counts as none.
const lastEpoch = 1 << 53

// mark is a writer's mark, not a packet's: what a controller writes into
// AnnotationClaimsWriter of a HostSubnet before it writes claims there. Terms are
// numbered; a later one has a greater number.
type mark struct {
	epoch uint64
	// writer is the controller in one term: never the same twice. It is
	// <namespace of the Lease>/<identity>/<random>.
	writer string
}

// String is the annotation's text.
func (m mark) String() string { return fmt.Sprintf("%d %s", m.epoch, m.writer) }

// parseMark reads an annotation. What it cannot read is the zero mark, which is earlier
// than any other.
func parseMark(text string) mark {
	number, writer, _ := strings.Cut(text, " ")
	epoch, err := strconv.ParseUint(number, 10, 64)
	if err != nil || epoch > lastEpoch {
		return mark{}
	}
	return mark{epoch: epoch, writer: writer}
}

// namespace is that of the Lease under which the writer works, "" if it has none or the
// mark was not written by a controller.
func (m mark) namespace() string { return namespaceOf(m.writer) }

// namespaceOf is the namespace in the name of a writer.
func namespaceOf(writer string) string {
	namespace, _, found := strings.Cut(writer, "/")
	if !found || len(validation.IsDNS1123Label(namespace)) > 0 {
		return ""
	}
	return namespace
}

// latestMark returns the host with the mark of the latest term, nil if none has a mark.
// Of two terms with one number, which both end, it is always the same.
func latestMark(hosts []*v1.HostSubnet) *v1.HostSubnet {
	var latest *v1.HostSubnet
	for _, h := range hosts {
		if !hasMark(h) {
			continue
		}
		if latest == nil || compareTerms(markOf(latest), markOf(h)) < 0 {
			latest = h
		}
	}
	return latest
}

func compareTerms(a, b mark) int {
	return cmp.Or(cmp.Compare(a.epoch, b.epoch), cmp.Compare(a.writer, b.writer))
}

// markOf is the mark of a HostSubnet, the zero mark for none.
func markOf(h *v1.HostSubnet) mark { return parseMark(h.Annotations[v1.AnnotationClaimsWriter]) }

// hasMark reports whether some controller has marked the HostSubnet.
func hasMark(h *v1.HostSubnet) bool { return markOf(h) != mark{} }

// assigns reports whether the controller assigns egress IPs to the host, as is stored.
func assigns(h *v1.HostSubnet) bool {
	return len(h.EgressCIDRs) > 0 || len(h.AssignedEgressIPs) > 0 || h.Status.Placement != nil && h.Status.Placement.EgressAssignable
}

// marked returns the HostSubnets on which a mark matters: those that the controller assigns to, and
// those that were when a controller marked them and may be so again. Where there is none,
// the first by name has the mark: another install finds this one by it.
func marked(hosts []*v1.HostSubnet) []*v1.HostSubnet {
	var found []*v1.HostSubnet
	var first *v1.HostSubnet
	for _, h := range hosts {
		if _, ok := h.Annotations[v1.AnnotationClaimsWriter]; ok || assigns(h) {
			found = append(found, h)
		}
		if first == nil || h.Name < first.Name {
			first = h
		}
	}
	if len(found) == 0 && first != nil {
		found = append(found, first)
	}
	return found
}

// nextEpoch is the number of the term that follows all that have marked the hosts.
func nextEpoch(hosts []*v1.HostSubnet) uint64 {
	var last uint64
	for _, h := range hosts {
		last = max(last, markOf(h).epoch)
	}
	return last + 1
}

// compareMarks returns the hosts that lack the mark of this controller. It fails with
// errDeposed if any has the mark of a later term. A term of another controller with the
// same number is as good as a later one: both end then.
func compareMarks(mine mark, hosts []*v1.HostSubnet) (lacking []*v1.HostSubnet, err error) {
	for _, h := range marked(hosts) {
		switch found := markOf(h); {
		case found == mine:
		case found.epoch >= mine.epoch:
			return nil, fmt.Errorf("%w: HostSubnet %s is marked %q, this controller is %q", errDeposed, h.Name, found, mine)
		default:
			lacking = append(lacking, h)
		}
	}
	return lacking, nil
}
