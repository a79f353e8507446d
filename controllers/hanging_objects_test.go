package controllers_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/controllers"
	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// creates reports whether a request creates the object of that name, of a kind in its plural.
func creates(t *testing.T, r *http.Request, plural, name string) bool {
	t.Helper()
	return r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/"+plural) && strings.Contains(bodyOf(t, r), `"name":"`+name+`"`)
}

// TestHangingCreationsAndBindingsHoldUpNoOther: the API server answers neither the creation
// nor the binding of some objects. All others are created meanwhile.
//
// Mutants killed: creations-are-waited-for, one-host-at-a-time.
func TestHangingCreationsAndBindingsHoldUpNoOther(t *testing.T) {
	a := startAPI(t)
	hung, requests := a.hang(func(r *http.Request) (name string) {
		patches := func(path string) bool { return r.Method == http.MethodPatch && strings.HasSuffix(r.URL.Path, path) }
		switch {
		case creates(t, r, "netnamespaces", "created"):
			return "creation of NetNamespace created"
		case patches("/netnamespaces/bound"):
			return "binding of NetNamespace bound"
		case creates(t, r, "hostsubnets", "node1"):
			return "creation of HostSubnet node1"
		case patches("/hostsubnets/node2"):
			return "binding of HostSubnet node2"
		}
		return ""
	})
	hung.controlAlone(t, controllers.Options{})
	a.namespace(t, "created")
	a.namespace(t, "bound")
	a.node(t, "node1", "", "192.168.7.11")
	a.node(t, "node2", "", "192.168.7.12")
	all := []string{
		"creation of NetNamespace created", "binding of NetNamespace bound",
		"creation of HostSubnet node1", "binding of HostSubnet node2",
	}
	for _, what := range all {
		testenv.Eventually(t, func(context.Context) string { return requests.hangs(what) })
	}

	a.namespace(t, "late")
	a.awaitNamespace(t, "late", func(n *v1.NetNamespace) string {
		if n.Annotations[v1.AnnotationBoundUID] != string(n.UID) {
			return "it is not bound"
		}
		return ""
	})
	a.node(t, "node3", "", "192.168.7.13")
	a.awaitHost(t, "node3", func(h *v1.HostSubnet) string {
		if h.Annotations[v1.AnnotationBoundUID] != string(h.UID) {
			return "it is not bound"
		}
		return ""
	})
	for _, what := range all {
		if n := requests.endedCount(what); n > 0 {
			t.Errorf("%s had ended %d times when the others were there", what, n)
		}
	}
	requests.bounded(t)
}

// twins are two namespaces that get the same netid if it is free, in alphabetical order.
func twins(t *testing.T) (first, second string) {
	t.Helper()
	byID := make(map[uint32]string)
	for i := range 100_000 {
		name := fmt.Sprintf("team%05d", i)
		id, _ := egress.NextNetID(name, func(uint32) bool { return false })
		if other := byID[id]; other != "" {
			return other, name
		}
		byID[id] = name
	}
	t.Fatal("no two names have the same")
	return "", ""
}

// TestUnansweredNetIDsAreNobodyElses: the creation of a NetNamespace gets no answer, and is
// stored later. No other namespace has got its netid meanwhile.
//
// Mutant killed: unanswered-netids-are-free.
func TestUnansweredNetIDsAreNobodyElses(t *testing.T) {
	bank, shop := twins(t)
	a := startAPI(t)
	var mu sync.Mutex
	var kept *v1.NetNamespace
	behind := a.through(func(r *http.Request, next http.RoundTripper) (*http.Response, error) {
		if !creates(t, r, "netnamespaces", shop) {
			return next.RoundTrip(r)
		}
		mu.Lock()
		defer mu.Unlock()
		if kept == nil {
			kept = &v1.NetNamespace{}
			if err := json.Unmarshal([]byte(bodyOf(t, r)), kept); err != nil {
				t.Error(err)
			}
		}
		return nil, errors.New("connection lost")
	})
	behind.controlAlone(t, controllers.Options{})
	a.namespace(t, shop)
	testenv.Eventually(t, func(context.Context) string {
		mu.Lock()
		defer mu.Unlock()
		if kept == nil {
			return "no NetNamespace was sent"
		}
		return ""
	})
	a.namespace(t, bank) // it comes first where both are without
	a.awaitNamespace(t, bank, func(*v1.NetNamespace) string { return "" })
	mu.Lock()
	late := kept.DeepCopy()
	mu.Unlock()
	a.create(t, late)

	var list v1.NetNamespaceList
	if err := a.List(t.Context(), &list); err != nil {
		t.Fatal(err)
	}
	owner := make(map[uint32]string)
	for _, n := range list.Items {
		if other := owner[*n.NetID]; other != "" {
			t.Errorf("NetNamespaces %s and %s have netid %d", other, n.Name, *n.NetID)
		}
		owner[*n.NetID] = n.Name
	}
	if owner[*late.NetID] != shop {
		t.Errorf("netid %d has %q, want %s", *late.NetID, owner[*late.NetID], shop)
	}
}
