package controllers_test

import (
	"fmt"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/controllers"
)

// TestApplyTogether: a Namespace and its NetNamespace may come in one file, while the
// controller works. There are two ways that never fail: the NetNamespace first, or
// server-side apply. (With the Namespace first, kubectl's client-side apply finds no
// NetNamespace, and meets the controller's when it creates one.)
func TestApplyTogether(t *testing.T) {
	a := startAPI(t)
	a.control(t, controllers.Options{})
	const times = 20
	ways := map[string]struct {
		first string
		flags []string
	}{
		"netnamespace-first": {first: "NetNamespace"},
		"server-side":        {first: "Namespace", flags: []string{"--server-side"}},
	}
	const early = "apiVersion: network.openshift.io/v1\nkind: NetNamespace\nmetadata: {name: early}\negressIPs: [192.168.7.250]\n"
	if out, err := a.kubectl(t, early, "apply", "-f", "-"); err != nil {
		t.Fatalf("kubectl apply: %v\n%s", err, out)
	}
	made := make(map[string]types.UID)
	for way, how := range ways {
		for i := range times {
			name := fmt.Sprintf("%s-%d", way, i)
			documents := []string{
				fmt.Sprintf("apiVersion: v1\nkind: Namespace\nmetadata: {name: %s}\n", name),
				fmt.Sprintf("apiVersion: network.openshift.io/v1\nkind: NetNamespace\nmetadata: {name: %s}\negressIPs: [%s]\n", name, egressIPOf(i)),
			}
			if how.first == "NetNamespace" {
				documents[0], documents[1] = documents[1], documents[0]
			}
			if out, err := a.kubectl(t, strings.Join(documents, "---\n"), append([]string{"apply", "-f", "-"}, how.flags...)...); err != nil {
				t.Fatalf("%s: kubectl apply: %v\n%s", name, err, out)
			}
			n := netNamespace(name)
			if err := a.Get(t.Context(), client.ObjectKeyFromObject(n), n); err != nil {
				t.Fatal(err)
			}
			made[name] = n.UID
		}
	}
	for way := range ways {
		for i := range times {
			name := fmt.Sprintf("%s-%d", way, i)
			a.awaitNamespace(t, name, func(n *v1.NetNamespace) string {
				switch {
				case n.UID != made[name]:
					t.Fatalf("NetNamespace %s was replaced", name)
				case len(n.EgressIPs) != 1 || n.EgressIPs[0] != egressIPOf(i):
					t.Fatalf("NetNamespace %s requests %v", name, n.EgressIPs)
				case n.NetID == nil || n.NetName != name || n.Annotations[v1.AnnotationNamespaceUID] == "":
					return fmt.Sprintf("netid %v, netname %q, annotations %v", n.NetID, n.NetName, n.Annotations)
				}
				return ""
			})
		}
	}
	a.wantEarly(t)
}

// wantEarly wants a NetNamespace that was there for long without a Namespace, and bound to
// it afterwards.
func (a *api) wantEarly(t *testing.T) {
	t.Helper()
	n := netNamespace("early")
	if err := a.Get(t.Context(), client.ObjectKeyFromObject(n), n); err != nil {
		t.Fatal(err)
	}
	a.namespace(t, "early")
	a.awaitNamespace(t, "early", func(now *v1.NetNamespace) string {
		if now.UID != n.UID || len(now.EgressIPs) != 1 {
			t.Fatalf("it was replaced: %v", now.EgressIPs)
		}
		if now.NetID == nil || now.Annotations[v1.AnnotationNamespaceUID] == "" {
			return fmt.Sprintf("netid %v, annotations %v", now.NetID, now.Annotations)
		}
		return ""
	})
}

func egressIPOf(i int) string { return fmt.Sprintf("192.168.7.%d", 200+i) }
