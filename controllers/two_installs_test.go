package controllers_test

import (
	"context"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/controllers"
	"github.com/egressip-operator/egressip-operator/internal/testenv"
)

// TestTwoInstalls: a second install, in another namespace, leads by its own Lease. It
// writes nothing and says why, until the first is stopped; also where no host is automatic.
//
// Mutants killed: second-install-works, manual-hosts-need-no-mark.
func TestTwoInstalls(t *testing.T) {
	a := startAPI(t)
	a.agents(t)
	for _, namespace := range []string{"first", "second"} {
		a.create(t, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}})
	}
	a.node(t, "node1", "10.254.1.0/24", "192.168.7.11")
	first := a.start(t, controllers.Options{LeaderElection: true, LeaderElectionNamespace: "first"})
	a.namespace(t, "shop")
	testenv.Eventually(t, func(ctx context.Context) string {
		h := hostSubnet("node1")
		if err := a.Get(ctx, client.ObjectKeyFromObject(h), h); err != nil {
			return err.Error()
		}
		if h.Annotations[v1.AnnotationClaimsWriter] == "" {
			return "the first install has not marked the host, which is manual"
		}
		return ""
	})
	health := freeAddress(t)
	second := a.start(t, controllers.Options{LeaderElection: true, LeaderElectionNamespace: "second", HealthAddress: health})
	a.refused(t, second, health)
	a.request(t, "shop", "192.168.7.200")
	a.ranges(t, "node1", "192.168.7.0/24")
	a.awaitNamespace(t, "shop", wantActive("192.168.7.200", "node1"))
	a.refused(t, second, health)
	// It would have marked the host by now, and so have ended the first.
	a.namespace(t, "bank")
	a.request(t, "bank", "192.168.7.201")
	a.awaitNamespace(t, "bank", wantActive("192.168.7.201", "node1"))
	select {
	case err := <-first.done:
		t.Fatalf("the first ended: %v", err)
	default:
	}

	first.stop()
	if err := <-first.done; err != nil {
		t.Errorf("the first ended with: %v", err)
	}
	a.namespace(t, "club")
	a.request(t, "club", "192.168.7.202")
	a.awaitNamespace(t, "club", wantActive("192.168.7.202", "node1"))
	testenv.Eventually(t, func(ctx context.Context) string {
		_, err := get(ctx, "http://"+health+"/readyz")
		return text(err)
	})
}

// refused waits until the second install says that it does nothing, and why.
func (a *api) refused(t *testing.T, second *process, health string) {
	t.Helper()
	testenv.Eventually(t, func(ctx context.Context) string {
		if _, err := get(ctx, "http://"+health+"/readyz/only-install"); err == nil || !strings.Contains(err.Error(), "namespace first") {
			return "readyz does not name the first install: " + text(err)
		}
		if !strings.Contains(second.log.String(), "another install of the operator works in namespace first") {
			return "the log does not say why"
		}
		all, err := a.events(ctx, "HostSubnet", "node1")
		if err != nil {
			return err.Error()
		}
		if !slices.ContainsFunc(all, func(e string) bool {
			return strings.HasPrefix(e, "OtherInstall:") && strings.Contains(e, "namespace first")
		}) {
			return "no event OtherInstall"
		}
		return ""
	})
}
