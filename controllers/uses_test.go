package controllers

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/internal/record"
)

// listed is an API server with NetNamespaces that may not answer.
type listed struct {
	client.Reader
	items []v1.NetNamespace
	err   error
}

func (l *listed) List(_ context.Context, list client.ObjectList, _ ...client.ListOption) error {
	if namespaces, ok := list.(*v1.NetNamespaceList); ok && l.err == nil {
		namespaces.Items = l.items
	}
	return l.err
}

// version is a version of a NetNamespace whose egress IP is used on a host, or not.
func version(uid, resourceVersion, host string) *v1.NetNamespace {
	n := &v1.NetNamespace{ObjectMeta: metav1.ObjectMeta{Name: "shop", UID: types.UID(uid), ResourceVersion: resourceVersion}, NetID: new(uint32(17))}
	n.Status.EgressIPs = []v1.RequestStatus{{IP: "192.168.7.200", State: v1.StateUnassigned}}
	if host != "" {
		n.Status.EgressIPs[0] = v1.RequestStatus{IP: "192.168.7.200", Host: host, State: v1.StateActive, Reason: "Assigned"}
	}
	return n
}

// followed are uses whose log is kept in short.
func followed(from, cached client.Reader) (u *uses, said func() string) {
	var all []string
	log := funcr.NewJSON(func(line string) {
		for part := range strings.SplitSeq(line, ",") {
			for _, key := range []string{"group", "fromHost", "toHost", "reason"} {
				if value, ok := strings.CutPrefix(part, `"`+key+`":`); ok && strings.Contains(line, "use of an egress IP changed") {
					all = append(all, strings.Trim(value, `"}`))
				}
			}
		}
	}, funcr.Options{})
	u = newUses(log, deps{live: from, cache: cached, clock: clock.RealClock{}}, nil, record.New(record.Config{Writer: "node1", Term: "a", Now: time.Now}))
	none := func(context.Context, client.Object, client.Object) {}
	u.report, u.reportDeleted = none, none
	return u, func() string {
		defer func() { all = nil }()
		return strings.Join(all, " ")
	}
}

// TestUsesAreReportedOnce: by the answer to a write or by the cache, whichever comes first; what the
// former leader wrote is not told again.
//
// Mutants: use-is-reported-twice, use-base-is-empty, deleted-use-goes-on.
func TestUsesAreReportedOnce(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	u, said := followed(&listed{items: []v1.NetNamespace{*version("1", "10", "node1")}}, nil)
	u.saw(ctx, version("1", "12", "node2")) // written while the list was read
	if got := said(); got != "" {
		t.Errorf("before the term: %q", got)
	}
	if err := u.begin(ctx); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		what string
		do   func()
		want string
	}{
		{"what was written meanwhile", func() {}, "shop node1 node2 Assigned"},
		{"the former leader's last write", func() { u.saw(ctx, version("1", "9", "node3")) }, ""},
		{"the cache shows the base", func() { u.saw(ctx, version("1", "10", "node1")) }, ""},
		{"an answer", func() { u.saw(ctx, version("1", "20", "node1")) }, "shop node2 node1 Assigned"},
		{"the cache shows it", func() { u.saw(ctx, version("1", "20", "node1")) }, ""},
		{"the cache shows what has no answer", func() { u.saw(ctx, version("1", "21", "node2")) }, "shop node1 node2 Assigned"},
		{"a late answer", func() { u.saw(ctx, version("1", "20", "node1")) }, ""},
		{"another netid", func() {
			n := version("1", "22", "node2")
			n.NetID = new(uint32(18))
			u.saw(ctx, n)
		}, "shop node2 node2 NetIDChanged"},
		{"it is deleted", func() { u.gone(ctx, version("1", "22", "node2")) }, "shop node2  Deleted"},
		{"it is deleted again", func() { u.gone(ctx, version("1", "22", "node2")) }, ""},
		{"one of the same name", func() { u.saw(ctx, version("2", "30", "node1")) }, "shop  node1 Assigned"},
	} {
		if step.do(); true {
			if got := said(); got != step.want {
				t.Errorf("%s: %q, want %q", step.what, got, step.want)
			}
		}
	}
	a, err := u.record.Answer(ctx, record.Query{})
	if err != nil || len(a.Segments) != 1 || !a.Segments[0].Live || len(a.Segments[0].Periods) != 6 {
		t.Errorf("recorded: %+v, %v", a, err)
	}
}

// TestUsesWithoutAnAPIServer: a term begins by the caches if the API server does not answer, and writes
// wait that long.
func TestUsesWithoutAnAPIServer(t *testing.T) {
	t.Parallel()
	inBubble(t, nil, func(t *testing.T, _ published) {
		t.Helper()
		u, _ := followed(&listed{err: errors.New("no answer")}, &listed{items: []v1.NetNamespace{*version("1", "10", "node1")}})
		u.log = logr.Discard()
		began := time.Now()
		done := make(chan string, 1)
		go func() { done <- fmt.Sprint(u.await(t.Context()), time.Since(began) >= baseWithin) }()
		if err := u.begin(t.Context()); err != nil {
			t.Error(err)
		}
		if got := <-done; got != "<nil> true" {
			t.Errorf("writes waited: %s", got)
		}
		if took := time.Since(began); took > baseWithin+2*baseRetry {
			t.Errorf("it took %s", took)
		}
	})
}

// TestForgedUseIsNotRecorded: what someone else writes into a status is repaired, and no use.
//
// Mutant: forged-use-is-recorded.
func TestForgedUseIsNotRecorded(t *testing.T) {
	t.Parallel()
	inBubble(t, []string{"shop"}, func(t *testing.T, p published) {
		t.Helper()
		used := wantNamespace("shop", "")
		used.namespace.EgressIPs[0].State = v1.StateActive
		p.publish(p.view(), []wantedStatus{used})
		pass(time.Second)
		stored := p.view().namespaces[0].DeepCopy()
		stored.ResourceVersion = "1" + stored.ResourceVersion
		forged := stored.DeepCopy()
		forged.Status.EgressIPs[0].Host = "elsewhere"
		p.repair(t.Context(), forged)
		a, err := p.uses.record.Answer(t.Context(), record.Query{})
		if err != nil || len(a.Segments) != 1 || len(a.Segments[0].Periods) != 1 || a.Segments[0].Periods[0].Host != "node1" {
			t.Errorf("recorded: %+v, %v", a.Segments, err)
		}
	})
}
