package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"

	"github.com/go-logr/logr/testr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"pgregory.net/rapid"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
)

// history is what a HostSubnet was, in order: nil where there was none. It begins with
// one, and each creation has a UID of its own. It is deleted once at most: of three UIDs, no
// one can tell which of the others is older than the one that was asked about.
func history(t *rapid.T) []*v1.HostSubnet {
	var versions []*v1.HostSubnet
	var last *v1.HostSubnet
	created := 0
	for range rapid.IntRange(2, 12).Draw(t, "versions") {
		switch {
		case last == nil:
			created++
			last = &v1.HostSubnet{ObjectMeta: metav1.ObjectMeta{Name: "node1", UID: types.UID(fmt.Sprint(created)), Generation: 1}}
		case created == 1 && rapid.IntRange(0, 3).Draw(t, "is deleted") == 0:
			last = nil
		default:
			last = last.DeepCopy()
			last.Generation++
		}
		versions = append(versions, last)
	}
	return versions
}

// TestPropertyOwnHostSubnetIsTheNewestKnown: whatever the cache lags by, and in whatever
// order answers arrive, no decision rests on a version of the node's HostSubnet that is
// older than what the cache has or than any answer, and none goes back in time.
//
// Mutants killed: answers-are-forgotten, answers-beat-the-watch, answers-out-of-order,
// deletions-are-not-answers, successors-are-overlooked.
func TestPropertyOwnHostSubnetIsTheNewestKnown(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var o own
		versions := history(t)
		at := func(position int) *v1.HostSubnet { return versions[position] }
		stored, watched, known := 0, 0, 0
		type request struct {
			question
			version int
		}
		var sent []request
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			switch rapid.IntRange(0, 3).Draw(t, "step") {
			case 0:
				stored = min(stored+rapid.IntRange(1, 3).Draw(t, "changes"), len(versions)-1)
			case 1:
				watched = rapid.IntRange(watched, stored).Draw(t, "delivered")
				known = max(known, watched)
			case 2:
				sent = append(sent, request{o.asks(at(watched)), stored})
			default:
				if len(sent) == 0 {
					continue
				}
				i := rapid.IntRange(0, len(sent)-1).Draw(t, "answered")
				r := sent[i]
				sent = slices.Delete(sent, i, i+1)
				if current, _ := o.answer(r.question, at(r.version)); current != (versionOf(at(r.version)) == r.cached) {
					t.Fatalf("current is %t", current)
				}
				known = max(known, r.version)
			}
			if at(watched) == nil {
				if got := o.correct("node1", nil); got != nil {
					t.Fatalf("the cache has no HostSubnet: decides by %+v", got)
				}
				continue
			}
			given := []v1.HostSubnet{{ObjectMeta: metav1.ObjectMeta{Name: "node0"}}, *at(watched)}
			before := slices.Clone(given)
			got := o.correct("node1", given)
			if versionOf(&given[1]) != versionOf(&before[1]) || len(given) != 2 {
				t.Fatal("the cache was changed")
			}
			var shown *v1.HostSubnet
			if len(got) == 2 {
				shown = &got[1]
			}
			if len(got) == 0 || got[0].Name != "node0" || versionOf(shown) != versionOf(at(known)) {
				t.Fatalf("of %d versions, the cache has %d and the newest known is %d: decides by %+v, want %+v", len(versions), watched, known, versionOf(shown), versionOf(at(known)))
			}
		}
	})
}

// TestOwnHostSubnetThatTheWatchHasNotDelivered: one that was created is used once the watch
// has delivered it, and not before: it may have been deleted again.
//
// Mutant killed: answers-bring-back-the-deleted.
func TestOwnHostSubnetThatTheWatchHasNotDelivered(t *testing.T) {
	t.Parallel()
	var o own
	created := &v1.HostSubnet{ObjectMeta: metav1.ObjectMeta{Name: "node1", UID: "1", Generation: 1}}
	for _, live := range []*v1.HostSubnet{nil, created, created} {
		if current, news := o.answer(o.asks(nil), live); current != (live == nil) || news {
			t.Errorf("the API server has %v: current %t, news %t", live, current, news)
		}
		if got := o.correct("node1", nil); got != nil {
			t.Errorf("the API server has %v, the cache none: decides by %v", live, got)
		}
	}
	if got := o.correct("node1", []v1.HostSubnet{*created}); len(got) != 1 || got[0].UID != "1" {
		t.Errorf("the cache has one, and there is %v", got)
	}
}

// laggingCache has the HostSubnet that it was given, and nothing else.
type laggingCache struct {
	cache.Cache
	host *v1.HostSubnet
}

func (c laggingCache) Get(_ context.Context, key client.ObjectKey, into client.Object, _ ...client.GetOption) error {
	if into, ok := into.(*v1.HostSubnet); ok && c.host != nil && c.host.Name == key.Name {
		c.host.DeepCopyInto(into)
		return nil
	}
	return apierrors.NewNotFound(schema.GroupResource{Resource: "hostsubnets"}, key.Name)
}

func (c laggingCache) List(_ context.Context, into client.ObjectList, _ ...client.ListOption) error {
	if into, ok := into.(*v1.HostSubnetList); ok && c.host != nil {
		into.Items = []v1.HostSubnet{*c.host}
	}
	return nil
}

func askerOf(t *testing.T, host string, c *caches) func(context.Context) (bool, error) {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := v1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	mapper := meta.NewDefaultRESTMapper(nil)
	mapper.Add(v1.GroupVersion().WithKind("HostSubnet"), meta.RESTScopeRoot)
	c.log, c.changed = testr.New(t), newSignal()
	ask, err := apiAsker(&rest.Config{Host: host}, scheme, mapper, c)
	if err != nil {
		t.Fatal(err)
	}
	return ask
}

// TestClaimsThatADeadWatchDoesNotDeliver: a host whose watch has died, and which reaches
// the API server by a new connection, learns by that what it must give up.
//
// Mutant killed: answers-do-not-count.
func TestClaimsThatADeadWatchDoesNotDeliver(t *testing.T) {
	t.Parallel()
	host := hostSubnet("node1", "10.1.8.11", "10.244.1.0/24", "10.1.8.200")
	host.UID, host.Generation = "1", 4
	var mu sync.Mutex
	live := host.DeepCopy()
	code := http.StatusOK
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		var answer any = live
		if code != http.StatusOK {
			answer = metav1.Status{
				TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"},
				Status:   metav1.StatusFailure, Code: int32(code), Reason: map[int]metav1.StatusReason{404: metav1.StatusReasonNotFound, 403: metav1.StatusReasonForbidden}[code],
			}
		}
		if err := json.NewEncoder(w).Encode(answer); err != nil {
			t.Error(err)
		}
	}))
	defer server.Close()
	c := &caches{cache: laggingCache{host: &host}, options: Options{NodeName: "node1"}}
	ask := askerOf(t, server.URL, c)
	for _, step := range []struct {
		what          string
		change        func()
		current, news bool
		claims        []string
	}{
		{"all is well", func() {}, true, false, []string{"10.1.8.200"}},
		{"a claim has gone", func() { live.Generation, live.EgressIPs = 5, nil }, false, true, nil},
		{"the same", func() {}, false, false, nil},
		{"the API server refuses", func() { code = http.StatusForbidden }, false, false, nil},
		{"another claim has come", func() {
			code = http.StatusOK
			live.Generation, live.EgressIPs = 6, []string{"10.1.8.201"}
		}, false, true, []string{"10.1.8.201"}},
		{"it was deleted", func() { code = http.StatusNotFound }, false, true, nil},
	} {
		mu.Lock()
		step.change()
		mu.Unlock()
		current, err := ask(t.Context())
		if err != nil || current != step.current {
			t.Errorf("%s: current %t, error %v", step.what, current, err)
		}
		select {
		case <-c.changed:
			if !step.news {
				t.Errorf("%s: decides again", step.what)
			}
		default:
			if step.news {
				t.Errorf("%s: does not decide again", step.what)
			}
		}
		in, err := c.gather(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var claims []string
		for _, h := range in.hostSubnets {
			claims = append(claims, h.EgressIPs...)
		}
		if !slices.Equal(claims, step.claims) || (code == http.StatusNotFound) != (len(in.hostSubnets) == 0) {
			t.Errorf("%s: decides by %d HostSubnets with claims %v, want %v", step.what, len(in.hostSubnets), claims, step.claims)
		}
	}
}

// TestAskingAnAPIServerThatIsAway: the answer comes in time, and is an error.
func TestAskingAnAPIServerThatIsAway(t *testing.T) {
	t.Parallel()
	ask := askerOf(t, "http://127.0.0.1:1", &caches{cache: laggingCache{}, options: Options{NodeName: "node1"}})
	ctx, cancel := context.WithTimeout(t.Context(), 10*askWithin)
	defer cancel()
	if current, err := ask(ctx); err == nil || current || ctx.Err() != nil {
		t.Errorf("current %t, error %v, %v", current, err, ctx.Err())
	}
}
