package installcheck

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
)

const system = "egressip-system"

// install are the objects of an install that works.
func install(now time.Time) (lease *coordinationv1.Lease, agents *appsv1.DaemonSet, host *v1.HostSubnet) {
	lease = &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: system, Name: controllerName}}
	lease.Spec = coordinationv1.LeaseSpec{HolderIdentity: new("node1_x"), RenewTime: &metav1.MicroTime{Time: now.Add(-2 * time.Second)}, LeaseDurationSeconds: new(int32(15))}
	agents = &appsv1.DaemonSet{ObjectMeta: metav1.ObjectMeta{Namespace: system, Name: agentName, Generation: 2}}
	agents.Status = appsv1.DaemonSetStatus{ObservedGeneration: 2, DesiredNumberScheduled: 3, NumberReady: 3}
	host = &v1.HostSubnet{ObjectMeta: metav1.ObjectMeta{Name: "node1"}}
	host.Status.Conditions = []metav1.Condition{{Type: v1.ConditionAgentReady, Status: metav1.ConditionTrue}}
	return lease, agents, host
}

func clientOf(t *testing.T, objects ...client.Object) client.Client {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), v1.AddToScheme(scheme)); err != nil {
		t.Fatal(err)
	}
	return fake.NewClientBuilder().WithScheme(scheme).WithObjects(objects...).Build()
}

// Each thing that may be missing is named, with where to look.
func TestWhatIsMissing(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_800_000_000, 0)
	for want, breaks := range map[string]func(*coordinationv1.Lease, *appsv1.DaemonSet, *v1.HostSubnet){
		"": func(*coordinationv1.Lease, *appsv1.DaemonSet, *v1.HostSubnet) {},
		"no controller leads: read Lease egressip-system/": func(l *coordinationv1.Lease, _ *appsv1.DaemonSet, _ *v1.HostSubnet) { l.Name = "other" },
		"nobody holds Lease": func(l *coordinationv1.Lease, _ *appsv1.DaemonSet, _ *v1.HostSubnet) { l.Spec.HolderIdentity = new("") },
		"has not renewed Lease egressip-system/egressip-controller for 1m0s": func(l *coordinationv1.Lease, _ *appsv1.DaemonSet, _ *v1.HostSubnet) {
			l.Spec.RenewTime = &metav1.MicroTime{Time: now.Add(-time.Minute)}
		},
		"no agents: read DaemonSet": func(_ *coordinationv1.Lease, d *appsv1.DaemonSet, _ *v1.HostSubnet) { d.Name = "other" },
		"has not been looked at":    func(_ *coordinationv1.Lease, d *appsv1.DaemonSet, _ *v1.HostSubnet) { d.Status.ObservedGeneration = 1 },
		"fits no node": func(_ *coordinationv1.Lease, d *appsv1.DaemonSet, _ *v1.HostSubnet) {
			d.Status.DesiredNumberScheduled = 0
		},
		"2 of 3 are ready": func(_ *coordinationv1.Lease, d *appsv1.DaemonSet, _ *v1.HostSubnet) { d.Status.NumberReady = 2 },
		"HostSubnet node1: its agent is not ready: ApplyFailed: no": func(_ *coordinationv1.Lease, _ *appsv1.DaemonSet, h *v1.HostSubnet) {
			h.Status.Conditions = []metav1.Condition{{Type: v1.ConditionAgentReady, Status: metav1.ConditionFalse, Reason: "ApplyFailed", Message: "no"}}
		},
	} {
		lease, agents, host := install(now)
		breaks(lease, agents, host)
		missing := missingIn(t.Context(), clientOf(t, lease, agents, host), now, system)
		if (missing == nil) != (want == "") || missing != nil && !strings.Contains(missing.Error(), want) {
			t.Errorf("%v, want %q", missing, want)
		}
	}
	lease, agents, _ := install(now)
	if missing := missingIn(t.Context(), clientOf(t, lease, agents), now, system); missing == nil || !strings.Contains(missing.Error(), "no HostSubnets") {
		t.Errorf("without hosts: %v", missing)
	}
}

// It waits for what is missing, says it once, and gives up with it.
func TestWaiting(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		lease, agents, host := install(time.Now())
		lease.Spec.LeaseDurationSeconds = new(int32(3600))
		agents.Status.NumberReady = 1
		c := clientOf(t, lease, agents, host)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		var told []string
		err := wait(ctx, c, clock.RealClock{}, system, func(missing error) { told = append(told, missing.Error()) })
		if len(told) != 1 || err == nil || !strings.Contains(err.Error(), "1 of 3 are ready") || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v, after %q", err, told)
		}
		agents.Status.NumberReady = 3
		works := clientOf(t, lease, agents, host)
		ctx, cancel = context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		began := time.Now()
		err = wait(ctx, laterReader{c, works, began.Add(5 * time.Second)}, clock.RealClock{}, system, func(error) {})
		if took := time.Since(began); err != nil || took < 5*time.Second || took > 7*time.Second {
			t.Errorf("%v, after %s", err, took)
		}
	})
}

// laterReader reads what is before some time, and then something else.
type laterReader struct {
	before, after client.Reader
	at            time.Time
}

func (r laterReader) now() client.Reader {
	if time.Now().Before(r.at) {
		return r.before
	}
	return r.after
}

func (r laterReader) Get(ctx context.Context, key client.ObjectKey, object client.Object, o ...client.GetOption) error {
	return r.now().Get(ctx, key, object, o...)
}

func (r laterReader) List(ctx context.Context, list client.ObjectList, o ...client.ListOption) error {
	return r.now().List(ctx, list, o...)
}
