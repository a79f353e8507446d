package controllers

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"
	testclock "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
)

// listing is an API server of which something happens after a list.
type listing struct {
	*store
	lists int
	after map[int]func()
}

func (l *listing) List(ctx context.Context, list client.ObjectList, o ...client.ListOption) error {
	err := l.store.List(ctx, list, o...)
	if _, hosts := list.(*v1.HostSubnetList); hosts {
		l.lists++
		if then := l.after[l.lists]; then != nil {
			then()
		}
	}
	return err
}

// fenced returns a fence on a store with two hosts, the first of which is automatic.
func fenced(deposed func(error)) (*fence, *listing) {
	l := &listing{store: newStore(), after: make(map[int]func())}
	for _, name := range []string{"node1", "node2"} {
		l.hosts[name] = &v1.HostSubnet{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name)}}
	}
	l.hosts["node1"].EgressCIDRs = []string{"192.168.7.0/24"}
	l.stamp(l.hosts["node1"], true)
	l.stamp(l.hosts["node2"], true)
	cache := &lagging{store: l.store}
	clock := testclock.NewFakeClock(time.Unix(1e9, 0))
	d := deps{live: l, writer: l, recorder: &record.FakeRecorder{}, clock: clock, claimsWriter: "me", deposed: deposed}
	return newFence(d, newObserver(cache, clock, noProbes, 0), newPassWrites(clock)), l
}

// edit changes a stored host.
func (l *listing) edit(name string, change func(*v1.HostSubnet)) func() {
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		change(l.hosts[name])
		l.stamp(l.hosts[name], true)
	}
}

// TestFenceListsAfterItsMarks: a host becomes automatic, and gets claims from the former
// leader, while the new one marks the others. The fence is closed only when that host
// is marked as well, and its claims are known.
//
// Mutant killed: mark-not-listed-again.
func TestFenceListsAfterItsMarks(t *testing.T) {
	f, l := fenced(func(err error) { t.Error(err) })
	l.after[1] = l.edit("node2", func(h *v1.HostSubnet) {
		h.EgressCIDRs, h.EgressIPs = []string{"192.168.7.0/24"}, []string{"192.168.7.200"}
		h.Annotations = map[string]string{v1.AnnotationClaimsWriter: "0 former"}
	})
	if got, err := f.close(t.Context()); got != lookAgain || err != nil {
		t.Fatalf("permission %d, %v", got, err)
	}
	for _, h := range l.hosts {
		if !f.passed[h.UID] || markOf(h) != f.mine {
			t.Errorf("%s is marked %q, and may be written: %t", h.Name, markOf(h), f.passed[h.UID])
		}
	}
	if known := f.observer.hosts["node2"]; known == nil || len(known.EgressIPs) != 1 {
		t.Errorf("the claims of the former leader are not known: %v", known)
	}
}

// TestFenceYields: a later mark, or one with the same number, that appears while a
// controller marks, or afterwards, ends its term for good.
func TestFenceYields(t *testing.T) {
	for _, other := range []string{"1 other", "900 of a backup"} {
		for list := 1; list <= 2; list++ {
			var reason error
			f, l := fenced(func(err error) { reason = err })
			l.after[list] = l.edit("node2", func(h *v1.HostSubnet) {
				h.Annotations = map[string]string{v1.AnnotationClaimsWriter: other}
			})
			_, err := f.close(t.Context())
			if err == nil {
				_, err = f.close(t.Context())
			}
			if !errors.Is(err, errDeposed) || !errors.Is(reason, errDeposed) || !f.over || f.mayWrite(l.hosts["node1"]) {
				t.Errorf("mark %q after list %d: %v, %v", other, list, err, reason)
			}
		}
	}
}

// TestMarkThatCameWithTheObject: a host is deleted and created again from a file that
// has this controller's mark. It gets claims only after a list has shown it.
func TestMarkThatCameWithTheObject(t *testing.T) {
	f, l := fenced(func(err error) { t.Error(err) })
	if _, err := f.close(t.Context()); err != nil {
		t.Fatal(err)
	}
	l.edit("node1", func(h *v1.HostSubnet) { h.UID = "another" })()
	if f.mayWrite(l.hosts["node1"]) {
		t.Error("claims may be written to it")
	}
	if _, err := f.close(t.Context()); err != nil || !f.mayWrite(l.hosts["node1"]) {
		t.Errorf("after a list it gets no claims: %v", err)
	}
}

// refusing refuses to change the hosts of these names.
type refusing struct {
	*listing
	names map[string]bool
}

func (r *refusing) Patch(ctx context.Context, object client.Object, p client.Patch, o ...client.PatchOption) error {
	if r.names[object.GetName()] {
		return apierrors.NewForbidden(schema.GroupResource{Resource: "hostsubnets"}, object.GetName(), errors.New("by a webhook"))
	}
	return r.listing.Patch(ctx, object, p, o...)
}

// TestMarksThatCannotBeWritten: a mark is refused. It holds up hosts that become automatic
// later if the host has an earlier controller's mark, which might still write there, and
// else no other. Those that were passed before get claims in any case.
//
// Mutants killed: refused-marks-hold-up-others, earlier-marks-hold-up-nobody.
func TestMarksThatCannotBeWritten(t *testing.T) {
	for _, test := range []struct {
		name, mark string
		want       bool
		event      string
	}{
		{"no mark", "", true, "this host gets no egress IPs"},
		{"an unreadable mark", "mine!", true, "this host gets no egress IPs"},
		{"an earlier mark", "0 former", false, "hosts that it has not marked yet get no egress IPs"},
	} {
		t.Run(test.name, func(t *testing.T) {
			f, l := fenced(func(err error) { t.Error(err) })
			f.writer = &refusing{listing: l, names: map[string]bool{"node2": true}}
			recorder := record.NewFakeRecorder(10)
			f.recorder = recorder
			if _, err := f.close(t.Context()); err != nil {
				t.Fatal(err)
			}
			l.edit("node2", func(h *v1.HostSubnet) {
				h.EgressCIDRs = []string{"192.168.7.0/24"}
				if test.mark != "" {
					h.Annotations = map[string]string{v1.AnnotationClaimsWriter: test.mark}
				}
			})()
			node3 := &v1.HostSubnet{
				ObjectMeta: metav1.ObjectMeta{Name: "node3", UID: "node3"}, EgressCIDRs: []string{"192.168.7.0/24"},
			}
			l.mu.Lock()
			l.hosts["node3"] = node3
			l.stamp(node3, true)
			l.mu.Unlock()

			var got permission
			var errs []error
			for range 3 {
				var err error
				got, err = f.review(t.Context(), view{hosts: []*v1.HostSubnet{l.hosts["node1"], l.hosts["node2"], l.hosts["node3"]}})
				errs = append(errs, err)
			}
			if got != claimsAllowed || !apierrors.IsForbidden(errors.Join(errs...)) {
				t.Errorf("permission %d, errors %v; want that claims are allowed, and the refusal", got, errs)
			}
			if event := <-recorder.Events; !strings.Contains(event, eventNotMarked) || !strings.Contains(event, test.event) || len(recorder.Events) > 0 {
				t.Errorf("event %q and %d more; want one with %q", event, len(recorder.Events), test.event)
			}
			for name, want := range map[string]bool{"node1": true, "node2": false, "node3": test.want} {
				if f.mayWrite(l.hosts[name]) != want {
					t.Errorf("claims may be written to %s: %t, want %t", name, !want, want)
				}
			}
		})
	}
}
