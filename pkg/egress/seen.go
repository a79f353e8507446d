package egress

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/labels"
)

// SeenPod is a pod of one node as one source describes it: the API server, or the node's
// container runtime. The other source may describe the same pod.
type SeenPod struct {
	Namespace, Name, UID string
	Labels               labels.Set
	// Addresses are its addresses of both families.
	Addresses []netip.Addr
	// Created is when the pod, or its sandbox, was created.
	Created time.Time
	// HostNetwork: its addresses are those of the node. Terminating: it is being deleted.
	// Ended: no container of it can send any more.
	HostNetwork, Terminating, Ended bool
	// FromRuntime: the container runtime describes it.
	FromRuntime bool
}

// OwnPods returns the pods whose traffic needs a path: those with an address of their own that
// may still send. Where two claim one address, as when it was reused before the object of its
// former owner was gone, the later pod has it. The answer is in order of address.
func OwnPods(seen []SeenPod) []Pod {
	type name struct{ namespace, name string }
	owners := make(map[netip.Addr]*SeenPod)
	// Not by UID: that of a static pod is another in the API.
	inAPI := make(map[name]bool)
	for i := range seen {
		pod := &seen[i]
		if !pod.FromRuntime {
			inAPI[name{pod.Namespace, pod.Name}] = true
		}
		if pod.HostNetwork || pod.Ended {
			continue
		}
		for _, ip := range pod.Addresses {
			if owner, taken := owners[ip]; !taken || pod.Succeeds(owner) {
				owners[ip] = pod
			}
		}
	}
	answer := make([]Pod, 0, len(owners))
	for ip, pod := range owners {
		answer = append(answer, Pod{
			Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID, IP: ip, Labels: pod.Labels,
			RuntimeOnly: !inAPI[name{pod.Namespace, pod.Name}],
		})
	}
	slices.SortFunc(answer, func(a, b Pod) int { return a.IP.Compare(b.IP) })
	return answer
}

// Succeeds reports whether p rather than other has the address that both claim.
func (p *SeenPod) Succeeds(other *SeenPod) bool {
	if p.Terminating != other.Terminating {
		return other.Terminating
	}
	if order := p.Created.Compare(other.Created); order != 0 {
		return order > 0
	}
	return cmp.Compare(p.UID, other.UID) > 0
}

// PodLife is what the API says about how long a pod sends.
type PodLife struct {
	// Terminal: its phase is Succeeded or Failed. Deleted: it is being deleted.
	Terminal, Deleted bool
	// Running: a container runs, of whatever kind. AllEnded: it has containers that are neither
	// init nor ephemeral ones, and all of them have ended.
	Running, AllEnded bool
}

// Ended reports whether no container of the pod can send any more, so that another pod may
// already have its address. A pod that is being deleted sends until its last container has
// ended, and a phase that something other than the kubelet wrote does not end a running
// container.
func (l PodLife) Ended() bool {
	return (l.Terminal || l.Deleted) && !l.Running && (l.Terminal || l.AllEnded)
}
