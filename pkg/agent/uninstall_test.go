package agent

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr/funcr"
	"github.com/prometheus/client_golang/prometheus"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/internal/testenv/objects"
)

// TestUninstalledAgentGivesUp: an agent that ends gives its egress IPs up if its
// DaemonSet has been deleted, and not if another has taken its place; and takes everything
// off the node if nothing is requested any more.
//
// Mutants killed: uninstalled-leaves-all, requests-are-let-out.
func TestUninstalledAgentGivesUp(t *testing.T) {
	a := startAPI(t)
	a.installCRDs(t)
	ctx := t.Context()
	own := objects.NetNamespace("shop", 17, "10.1.8.200")
	host := hostSubnet("node1", "10.1.8.11", "10.244.1.0/24", "10.1.8.200")
	if err := errors.Join(a.Create(ctx, &own), a.Create(ctx, &host)); err != nil {
		t.Fatal(err)
	}
	daemonSet := func() *appsv1.DaemonSet {
		labels := map[string]string{"app": "agent"}
		return &appsv1.DaemonSet{
			ObjectMeta: metav1.ObjectMeta{Name: "agents", Namespace: "default"},
			Spec: appsv1.DaemonSetSpec{
				Selector: &metav1.LabelSelector{MatchLabels: labels},
				Template: corev1.PodTemplateSpec{
					ObjectMeta: metav1.ObjectMeta{Labels: labels},
					Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "agent", Image: "agent"}}},
				},
			},
		}
	}
	for name, c := range map[string]struct {
		early, deleted, replaced bool // early: before the agent starts
		withdrawn                bool // all requests, before
		want                     int  // egress IPs that are left
	}{
		"an upgrade":  {want: 1},
		"uninstalled": {deleted: true, want: 0},
		// As by a Helm release that is taken back while its agents start: no
		// event will ever tell of it.
		"uninstalled before it started": {early: true, deleted: true, want: 0},
		"deleted and installed again":   {deleted: true, replaced: true, want: 1},
		// The egress IP has gone with the request, and now all else goes.
		"uninstalled, and nothing is requested": {deleted: true, withdrawn: true, want: 0},
		"an upgrade, and nothing is requested":  {withdrawn: true, want: 0},
	} {
		t.Run(name, func(t *testing.T) {
			await := func(wrong func(context.Context) string) {
				t.Helper()
				if last := testenv.Await(ctx, testenv.Patience, wrong); last != "" {
					t.Fatal(last)
				}
			}
			d := daemonSet()
			if !c.early {
				if err := a.Create(ctx, d); err != nil {
					t.Fatal(err)
				}
			}
			kernel := &fakeKernel{}
			var log lines
			logger := funcr.New(func(_, args string) { log.add(args) }, funcr.Options{})
			running, cancel := context.WithCancel(ctrl.LoggerInto(context.WithoutCancel(ctx), logger))
			done := make(chan error, 1)
			t.Cleanup(func() {
				cancel()
				for range done {
				}
			})
			go func() {
				defer close(done)
				done <- serve(running, a.cfg, Options{
					NodeName: "node1", MetricsAddress: "0", HealthAddress: "0", ResyncPeriod: 100 * time.Millisecond, Version: "v1",
					DaemonSet: types.NamespacedName{Namespace: "default", Name: "agents"},
				}, kernel, prometheus.NewRegistry())
			}()
			hosted := func() int {
				kernel.mu.Lock()
				defer kernel.mu.Unlock()
				if len(kernel.states) == 0 {
					return -1
				}
				return len(kernel.states[len(kernel.states)-1].Hosted)
			}
			await(func(context.Context) string {
				if n := hosted(); n != 1 {
					return fmt.Sprintf("%d egress IPs are hosted, want one", n)
				}
				return ""
			})
			before := 1
			if c.withdrawn {
				before = 0
				request := func(ips string) {
					t.Helper()
					if err := a.Patch(ctx, &v1.NetNamespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}},
						client.RawPatch(types.MergePatchType, []byte(`{"egressIPs":`+ips+`}`))); err != nil {
						t.Fatal(err)
					}
				}
				request("null")
				defer request(`["10.1.8.200"]`)
				await(func(context.Context) string {
					if n := hosted(); n != 0 {
						return fmt.Sprintf("%d egress IPs are hosted, want none", n)
					}
					return ""
				})
			}
			if c.deleted && !c.early {
				if err := a.Delete(ctx, d); err != nil {
					t.Fatal(err)
				}
			}
			if c.deleted {
				await(func(context.Context) string { return log.missing(`"deleted"=true`) })
			}
			if c.replaced {
				d = daemonSet()
				if err := a.Create(ctx, d); err != nil {
					t.Fatal(err)
				}
				await(func(context.Context) string { return log.missing(`"deleted"=false`) })
			}
			if n := hosted(); n != before {
				t.Errorf("%d egress IPs are hosted before the agent ends, want %d", n, before)
			}
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
			if n := hosted(); n != c.want {
				t.Errorf("%d egress IPs are left, want %d", n, c.want)
			}
			if want := c.deleted && c.withdrawn; (kernel.cleaned > 0) != want {
				t.Errorf("everything was taken off the node: %t, want %t", kernel.cleaned > 0, want)
			}
			if !c.deleted || c.replaced {
				if err := a.Delete(ctx, d); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// lines are what was logged.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) add(line string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text.WriteString(line + "\n")
}

// missing returns what was logged, where the words are not in it.
func (l *lines) missing(words string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if strings.Contains(l.text.String(), words) {
		return ""
	}
	return "no " + words + " in the log:\n" + l.text.String()
}
