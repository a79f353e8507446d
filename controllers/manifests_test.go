package controllers_test

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/controllers"
	"github.com/egressip-operator/egressip-operator/internal/testenv"
)

// TestOneStep: Namespace, NetNamespace and HostSubnet come in one kubectl apply, with
// what users decide and nothing else.
//
// Kills the mutant numbers-only-new-ones.
func TestOneStep(t *testing.T) {
	a := startAPI(t)
	a.control(t, controllers.Options{})
	const manifest = `
apiVersion: network.openshift.io/v1
kind: HostSubnet
metadata: {name: node1}
egressCIDRs: [192.168.7.192/26]
---
apiVersion: network.openshift.io/v1
kind: NetNamespace
metadata: {name: shop}
egressIPs: [192.168.7.200]
---
apiVersion: v1
kind: Namespace
metadata: {name: shop}
`
	for range 3 {
		if out, err := a.kubectl(t, manifest, "apply", "--server-side", "-f", "-"); err != nil {
			t.Fatalf("kubectl apply: %v\n%s", err, out)
		}
	}
	a.node(t, "node1", "10.254.1.0/24", "192.168.7.11")
	n := a.awaitNamespace(t, "shop", wantActive("192.168.7.200", "node1"))
	if n.NetName != "shop" || n.NetID == nil || *n.NetID < 10 {
		t.Errorf("netname %q, netid %v", n.NetName, n.NetID)
	}
	if out, err := a.kubectl(t, manifest, "apply", "--server-side", "-f", "-"); err != nil {
		t.Errorf("kubectl apply again: %v\n%s", err, out)
	}
	again := a.awaitNamespace(t, "shop", wantActive("192.168.7.200", "node1"))
	if again.Generation != n.Generation {
		t.Errorf("generation was %d and is %d", n.Generation, again.Generation)
	}
	a.patch(t, netNamespace("shop"), `{"netid": 4711}`)
	a.awaitNamespace(t, "shop", func(n *v1.NetNamespace) string {
		if *n.NetID != 4711 {
			return fmt.Sprintf("netid is %d", *n.NetID)
		}
		return wantActive("192.168.7.200", "node1")(n)
	})
}

// TestCanonicalClaims: a prefix length goes in admission, as the user's own write:
// applying the manifest again is no conflict, and changes nothing.
func TestCanonicalClaims(t *testing.T) {
	a := startAPI(t)
	if out, err := a.kubectl(t, "", "get", "mutatingadmissionpolicies.v1.admissionregistration.k8s.io"); err != nil {
		t.Skipf("an API server before 1.36: %s", out)
	}
	if out, err := a.kubectl(t, "", "apply", "--server-side", "-k", "../config/canonical"); err != nil {
		t.Fatalf("kubectl apply -k config/canonical: %v\n%s", err, out)
	}
	a.control(t, controllers.Options{})
	a.node(t, "node1", "10.254.1.0/24", "192.168.7.11")
	// The policy works from some moment after it was created.
	testenv.Eventually(t, func(ctx context.Context) string {
		h := hostSubnet("probe")
		h.EgressIPs = []string{"192.168.7.250/24"}
		if err := a.Create(ctx, h, client.DryRunAll); err != nil {
			return err.Error()
		}
		return wantEgressIPs(h.EgressIPs, "192.168.7.250")
	})
	a.claim(t, "node1", "192.168.7.200/24")
	out, err := a.kubectl(t, "", "get", "hostsubnet", "node1")
	if want := `["192.168.7.200"]`; err != nil || !strings.Contains(out, want) {
		t.Errorf("kubectl get hostsubnet: %v, want %s in\n%s", err, want, out)
	}
	const manifest = `
apiVersion: network.openshift.io/v1
kind: HostSubnet
metadata: {name: node1}
egressIPs: [192.168.7.200/24, 192.168.7.201/32, 192.168.7.202]
`
	apply := func() *v1.HostSubnet {
		if out, err := a.kubectl(t, manifest, "apply", "--server-side", "--field-manager=gitops", "-f", "-"); err != nil {
			t.Fatalf("kubectl apply: %v\n%s", err, out)
		}
		return a.awaitHost(t, "node1", func(h *v1.HostSubnet) string {
			if !slices.ContainsFunc(h.Status.Conditions, func(c metav1.Condition) bool {
				return c.Type == v1.ConditionEgressReady && c.ObservedGeneration == h.Generation
			}) {
				return "its status is of another generation"
			}
			return wantEgressIPs(h.EgressIPs, "192.168.7.200", "192.168.7.201", "192.168.7.202")
		})
	}
	// The list was patched by another manager.
	if _, err := a.kubectl(t, manifest, "apply", "--server-side", "--field-manager=gitops", "--force-conflicts", "-f", "-"); err != nil {
		t.Fatal(err)
	}
	first := apply()
	for range 10 {
		if again := apply(); again.Generation != first.Generation || again.ResourceVersion != first.ResourceVersion {
			t.Fatalf("generation was %d and is %d, resourceVersion was %s and is %s",
				first.Generation, again.Generation, first.ResourceVersion, again.ResourceVersion)
		}
	}
	// Other forms of an IPv6 address become the canonical one, in both kinds.
	if out, err := a.kubectl(t, "", "patch", "hostsubnet", "node1", "--type=merge", "-p", `{"egressIPs": ["2001:DB8:7:0::200/64", "2001:0db8:7::201", "192.168.7.200"]}`); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	a.awaitHost(t, "node1", func(h *v1.HostSubnet) string {
		return wantEgressIPs(h.EgressIPs, "2001:db8:7::200", "2001:db8:7::201", "192.168.7.200")
	})
	n := netNamespace("shop")
	n.EgressIPs = []string{"2001:DB8:7:0::200", "192.168.7.200"}
	if err := a.Create(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	if wrong := wantEgressIPs(n.EgressIPs, "2001:db8:7::200", "192.168.7.200"); wrong != "" {
		t.Error(wrong)
	}
	for _, refused := range []string{"192.168.7.200/33", "fd00::1/129", "::ffff:192.168.7.200/120", "fe80::1%eth0", "abc/24"} {
		h := hostSubnet("bad")
		h.EgressIPs = []string{refused}
		if err := a.Create(t.Context(), h); err == nil || !strings.Contains(err.Error(), `"`+refused+`"`) {
			t.Errorf("a claim of %s: %v", refused, err)
		}
	}
}

// TestExport: what oc get printed in another cluster is applied, with or without the
// Namespaces first, and every address is on the host where it was.
func TestExport(t *testing.T) {
	text, err := os.ReadFile("testdata/export.yaml")
	if err != nil {
		t.Fatal(err)
	}
	// Every API server refuses the identity of another cluster's object.
	var lines []string
	for line := range strings.Lines(string(text)) {
		if key, _, _ := strings.Cut(strings.TrimSpace(line), ":"); key != "uid" && key != "resourceVersion" {
			lines = append(lines, line)
		}
	}
	for _, first := range []string{"namespaces", "export"} {
		t.Run(first+" first", func(t *testing.T) {
			a := startAPI(t)
			const bound = 2 * time.Second
			a.control(t, controllers.Options{ClaimRetention: bound})
			for i, name := range []string{"node1", "node2"} {
				a.node(t, name, fmt.Sprintf("10.254.%d.0/24", i+1), fmt.Sprintf("192.168.7.%d", i+11))
				a.awaitHost(t, name, func(*v1.HostSubnet) string { return "" })
			}
			namespaces := func() {
				a.namespace(t, "shop")
				a.namespace(t, "bank")
			}
			if first == "namespaces" {
				namespaces()
			}
			if out, err := a.kubectl(t, strings.Join(lines, ""), "apply", "--server-side", "--force-conflicts", "-f", "-"); err != nil {
				t.Fatalf("kubectl apply: %v\n%s", err, out)
			}
			applied := time.Now()
			if first != "namespaces" {
				namespaces()
			}
			testenv.Eventually(t, func(ctx context.Context) string {
				for name, claims := range map[string][]string{"node1": {"192.168.7.200", "192.168.7.201"}, "node2": {"192.168.7.202"}} {
					h := hostSubnet(name)
					if err := a.Get(ctx, client.ObjectKey{Name: name}, h); err != nil {
						return err.Error()
					}
					if wrong := wantEgressIPs(h.EgressIPs, claims...); wrong != "" {
						return name + ": " + wrong
					}
				}
				if time.Since(applied) < 2*bound {
					return "the bound is not over"
				}
				return ""
			})
			a.awaitNamespace(t, "shop", wantActive("192.168.7.202", "node2"))
			a.awaitNamespace(t, "bank", wantActive("192.168.7.201", "node1"))
		})
	}
}
