package agent

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// at is a time that grows with n.
func at(n int) metav1.Time { return metav1.Unix(int64(1000+n), 0) }

func running() []corev1.ContainerStatus { return containers(1, 0) }

func terminated(n int) []corev1.ContainerStatus { return containers(0, n) }

func containers(run, end int) []corev1.ContainerStatus {
	var s []corev1.ContainerStatus
	for range run {
		s = append(s, corev1.ContainerStatus{State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: at(1)}}})
	}
	for range end {
		s = append(s, corev1.ContainerStatus{State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 1}}})
	}
	return s
}

func pod(name, ip string, change ...func(*corev1.Pod)) corev1.Pod {
	p := corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, UID: types.UID("uid-" + name), CreationTimestamp: at(0)},
		Spec:       corev1.PodSpec{NodeName: "node1"},
		Status: corev1.PodStatus{
			Phase: corev1.PodRunning, HostIP: "10.1.8.11", PodIP: ip, PodIPs: []corev1.PodIP{{IP: ip}},
			ContainerStatuses: running(),
		},
	}
	for _, c := range change {
		c(&p)
	}
	return p
}

// TestPodsOf: which pod may send from which address now.
func TestPodsOf(t *testing.T) {
	t.Parallel()
	deleted := func(p *corev1.Pod) { d := at(9); p.DeletionTimestamp = &d }
	phase := func(ph corev1.PodPhase) func(*corev1.Pod) { return func(p *corev1.Pod) { p.Status.Phase = ph } }
	with := func(s []corev1.ContainerStatus) func(*corev1.Pod) {
		return func(p *corev1.Pod) { p.Status.ContainerStatuses = s }
	}
	for name, c := range map[string]struct {
		pods []corev1.Pod
		want map[string]string
	}{
		"runs":                   {[]corev1.Pod{pod("a", "10.244.1.5")}, map[string]string{"10.244.1.5": "a"}},
		"no address yet":         {[]corev1.Pod{pod("a", "")}, nil},
		"has the node's address": {[]corev1.Pod{pod("a", "10.1.8.11", func(p *corev1.Pod) { p.Spec.HostNetwork = true })}, nil},
		"starts, init containers send": {
			[]corev1.Pod{pod("a", "10.244.1.5", phase(corev1.PodPending), with(nil))}, map[string]string{"10.244.1.5": "a"},
		},
		"two families": {
			[]corev1.Pod{pod("a", "fd00::5", func(p *corev1.Pod) {
				p.Status.PodIPs = append(p.Status.PodIPs, corev1.PodIP{IP: "10.244.1.5"})
			})}, map[string]string{"10.244.1.5": "a", "fd00::5": "a"},
		},
		"has succeeded":              {[]corev1.Pod{pod("a", "10.244.1.5", phase(corev1.PodSucceeded), with(terminated(1)))}, nil},
		"failed before it began":     {[]corev1.Pod{pod("a", "10.244.1.5", phase(corev1.PodFailed), with(nil))}, nil},
		"called failed, but runs on": {[]corev1.Pod{pod("a", "10.244.1.5", phase(corev1.PodFailed))}, map[string]string{"10.244.1.5": "a"}},
		"is deleted, still runs":     {[]corev1.Pod{pod("a", "10.244.1.5", deleted)}, map[string]string{"10.244.1.5": "a"}},
		"is deleted, one of two containers runs": {
			[]corev1.Pod{pod("a", "10.244.1.5", deleted, with(containers(1, 1)))}, map[string]string{"10.244.1.5": "a"},
		},
		"is deleted, all have ended": {[]corev1.Pod{pod("a", "10.244.1.5", deleted, with(terminated(2)))}, nil},
		"is deleted, a sidecar runs": {
			[]corev1.Pod{pod("a", "10.244.1.5", deleted, with(terminated(1)), func(p *corev1.Pod) {
				p.Status.InitContainerStatuses = running()
			})}, map[string]string{"10.244.1.5": "a"},
		},
		"is deleted, somebody debugs it": {
			[]corev1.Pod{pod("a", "10.244.1.5", deleted, with(terminated(1)), func(p *corev1.Pod) {
				p.Status.EphemeralContainerStatuses = running()
			})}, map[string]string{"10.244.1.5": "a"},
		},
		"is deleted, nothing known of its containers": {
			[]corev1.Pod{pod("a", "10.244.1.5", deleted, with(nil))}, map[string]string{"10.244.1.5": "a"},
		},
		"crashed, will start again": {
			[]corev1.Pod{pod("a", "10.244.1.5", with(terminated(1)))}, map[string]string{"10.244.1.5": "a"},
		},
		"address reused while the former owner is deleted": {
			[]corev1.Pod{
				pod("b", "10.244.1.5", func(p *corev1.Pod) { p.CreationTimestamp = at(-5) }),
				pod("a", "10.244.1.5", deleted, func(p *corev1.Pod) { p.CreationTimestamp = at(5) }),
			}, map[string]string{"10.244.1.5": "b"},
		},
		"address reused, the former owner seems to live": {
			[]corev1.Pod{
				pod("a", "10.244.1.5", func(p *corev1.Pod) { p.CreationTimestamp = at(5) }),
				pod("b", "10.244.1.5"),
			}, map[string]string{"10.244.1.5": "a"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, order := range [][]corev1.Pod{c.pods, reversed(c.pods)} {
				got := map[string]string{}
				for _, p := range podsOf(localPods(order, nil)) {
					got[p.IP.String()] = p.Name
				}
				if diff := cmp.Diff(c.want, got); diff != "" && len(c.want)+len(got) > 0 {
					t.Errorf("owners by address (-want +got):\n%s", diff)
				}
			}
		})
	}
}

func reversed(pods []corev1.Pod) []corev1.Pod {
	var r []corev1.Pod
	for i := range pods {
		r = append(r, pods[len(pods)-1-i])
	}
	return r
}

// TestHostIPOf: the newest pod knows the node's address best.
func TestHostIPOf(t *testing.T) {
	t.Parallel()
	if ip, ok := hostIPOf(localPods([]corev1.Pod{pod("a", "10.244.1.5", func(p *corev1.Pod) { p.Status.HostIP = "" })}, nil)); ok {
		t.Errorf("hostIPOf pods that do not tell = %v", ip)
	}
	pods := []corev1.Pod{
		pod("a", "10.244.1.5", func(p *corev1.Pod) { p.Status.HostIP = "10.1.8.10" }),
		pod("b", "10.244.1.6", func(p *corev1.Pod) { p.CreationTimestamp = at(5) }),
	}
	for _, order := range [][]corev1.Pod{pods, reversed(pods)} {
		if ip, ok := hostIPOf(localPods(order, nil)); !ok || ip != netip.MustParseAddr("10.1.8.11") {
			t.Errorf("hostIPOf = %v, %v, want 10.1.8.11", ip, ok)
		}
	}
}

// TestHostIPFrom: of the addresses that a pod reports of its node, the one counts that the
// controller chooses too, also where the kubelet names one of IPv6 first. The cache keeps them.
//
// Mutant killed: pods-know-one-address.
func TestHostIPFrom(t *testing.T) {
	t.Parallel()
	for want, listed := range map[string][]string{
		"10.1.8.11":  {"fd00:7::11", "10.1.8.11"},
		"10.1.8.12":  {"10.1.8.12", "fd00:7::12"},
		"fd00:7::13": {"fe80::13", "fd00:7::13"},
		"invalid IP": {"fe80::14"},
	} {
		p := pod("a", "10.244.1.5", func(p *corev1.Pod) {
			p.Status.HostIP, p.Status.HostIPs = listed[0], nil
			for _, ip := range listed {
				p.Status.HostIPs = append(p.Status.HostIPs, corev1.HostIP{IP: ip})
			}
		})
		slim, err := stripPod(&p)
		if err != nil {
			t.Fatal(err)
		}
		if got := hostIPFrom(slim.(*corev1.Pod)); got.String() != want {
			t.Errorf("of %q: %v, want %s", listed, got, want)
		}
	}
}
