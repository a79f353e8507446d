package controllers_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"path"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/controllers"
	"github.com/egressip-operator/egressip-operator/internal/testenv"
)

// firstBindings are the HTTP statuses of the first patch that binds each object: by kind
// in the plural and name.
type firstBindings struct {
	mu  sync.Mutex
	all map[string]int
}

// note notes the answer to a request. Patches that do not bind, as that of the leader's
// mark, may meet a conflict and are of no interest.
func (f *firstBindings) note(r *http.Request, status int) error {
	parts := strings.Split(r.URL.Path, "/")
	if r.Method != http.MethodPatch || parts[len(parts)-1] == "status" {
		return nil
	}
	patched, err := sent(r)
	if err != nil || patched.Annotations[v1.AnnotationBoundUID] == "" {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if key := strings.Join(parts[len(parts)-2:], "/"); f.all[key] == 0 {
		f.all[key] = status
	}
	return nil
}

// sent is the metadata in the body of a request.
func sent(r *http.Request) (object metav1.PartialObjectMetadata, err error) {
	body, err := r.GetBody()
	if err != nil {
		return object, err
	}
	return object, json.NewDecoder(body).Decode(&object)
}

func (f *firstBindings) of(key string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.all[key]
}

// afterCreate returns an api whose controllers learn of an object that they created
// only after meddle, which gets its kind in the plural and its name.
func (a *api) afterCreate(meddle func(ctx context.Context, kind, name string) error) (*api, *firstBindings) {
	delayed, bindings := *a, &firstBindings{all: make(map[string]int)}
	delayed.cfg = rest.CopyConfig(a.cfg)
	delayed.cfg.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return roundTrip(func(r *http.Request) (*http.Response, error) {
			response, err := next.RoundTrip(r)
			if err == nil {
				err = bindings.note(r, response.StatusCode)
			}
			kind := path.Base(r.URL.Path)
			if err != nil || r.Method != http.MethodPost || (kind != "hostsubnets" && kind != "netnamespaces") {
				return response, err
			}
			object, err := sent(r)
			if err != nil {
				return nil, err
			}
			return response, meddle(r.Context(), kind, object.Name)
		})
	})
	return &delayed, bindings
}

// TestBoundWhateverOthersWrite: what is created is bound although somebody else writes
// to it between the two requests, and its owner goes. An object that somebody else put
// in its place is not.
func TestBoundWhateverOthersWrite(t *testing.T) {
	a := startAPI(t)
	label := client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"labels":{"somebody":"wrote"}}}`))
	nodes := map[string]*corev1.Node{
		"brief": a.node(t, "brief", "", "192.168.7.10"), "replaced": a.node(t, "replaced", "", "192.168.7.11"),
	}
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}}
	a.create(t, namespace)
	users := hostSubnet("replaced")
	users.Host, users.HostIP = "replaced", "192.168.7.99"
	b, bindings := a.afterCreate(func(ctx context.Context, kind, name string) error {
		switch {
		case kind == "hostsubnets" && name == "brief":
			return errors.Join(a.Patch(ctx, hostSubnet(name), label), a.Delete(ctx, nodes[name]))
		case kind == "hostsubnets" && name == "replaced":
			return errors.Join(a.Delete(ctx, nodes[name]), a.Delete(ctx, hostSubnet(name)), a.Create(ctx, users))
		case name == "shop":
			return a.Patch(ctx, &v1.NetNamespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, label)
		default:
			return nil
		}
	})
	b.controlAlone(t, controllers.Options{})
	testenv.Eventually(t, func(ctx context.Context) string {
		var n v1.NetNamespace
		if err := a.Get(ctx, client.ObjectKeyFromObject(namespace), &n); err != nil {
			return err.Error()
		}
		if n.Labels["somebody"] == "" {
			return "nothing was written to it"
		}
		return wantBound(&n, v1.AnnotationNamespaceUID, namespace)
	})
	testenv.Eventually(t, func(context.Context) string {
		for _, key := range []string{"hostsubnets/brief", "hostsubnets/replaced", "netnamespaces/shop"} {
			if bindings.of(key) == 0 {
				return key + " was not bound yet"
			}
		}
		return ""
	})
	for key, want := range map[string]int{
		"hostsubnets/brief": http.StatusOK, "netnamespaces/shop": http.StatusOK,
	} {
		if got := bindings.of(key); got != want {
			t.Errorf("%s was bound with status %d, want %d", key, got, want)
		}
	}
	// Invalid or a conflict, as the API server finds out about another UID.
	if got := bindings.of("hostsubnets/replaced"); got < http.StatusBadRequest {
		t.Errorf("what somebody else created was bound with status %d", got)
	}
	testenv.Eventually(t, func(ctx context.Context) string {
		var hosts v1.HostSubnetList
		if err := a.List(ctx, &hosts); err != nil {
			return err.Error()
		}
		if len(hosts.Items) != 1 || hosts.Items[0].UID != users.UID {
			return fmt.Sprintf("HostSubnets are %v, want the user's alone", hosts.Items)
		}
		return ""
	})
	// One after another is created, so the binding of the others has been tried.
	later := a.node(t, "later", "", "192.168.7.12")
	a.awaitHost(t, "later", func(h *v1.HostSubnet) string { return wantBound(h, v1.AnnotationNodeUID, later) })
	a.awaitHost(t, "replaced", func(h *v1.HostSubnet) string {
		// The first of all HostSubnets has the leader's mark.
		delete(h.Annotations, v1.AnnotationClaimsWriter)
		if len(h.Annotations) > 0 {
			return fmt.Sprintf("the user's HostSubnet has annotations %v", h.Annotations)
		}
		return ""
	})
}
