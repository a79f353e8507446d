package egressip_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	ovnv1 "github.com/egressip-operator/egressip-operator/api/ovn/v1"
	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/controllers"
	"github.com/egressip-operator/egressip-operator/internal/testenv/apiserver"
	"github.com/egressip-operator/egressip-operator/test/conformance/egressip"
)

// TestAPIServer plays the cases on a real API server with the controller running.
func TestAPIServer(t *testing.T) {
	cases := load(t)
	d := startDriver(t)
	var count tally
	for _, c := range cases {
		t.Run(c.Name, func(t *testing.T) {
			switch {
			case onlyProbesDecide(t, c):
				count.notHere.Add(1)
				t.Log("not playable here: it needs nodes that answer probes, or do not, whatever their Nodes say")
			case c.IsRefused():
				count.count(t, d.refused(t, c))
			default:
				d.reset(t)
				count.count(t, egressip.Play(t.Context(), d, c))
			}
		})
	}
	count.report(t, "an API server with the controller", len(cases))
}

// onlyProbesDecide reports whether a Node is Ready and silent, or the other way round: here, no
// agent answers probes, and their silence means nothing.
func onlyProbesDecide(t *testing.T, c egressip.Case) bool {
	t.Helper()
	var now egressip.Cluster
	for _, step := range c.Steps {
		var err error
		if now, err = now.After(step.Do); err != nil {
			t.Fatal(err)
		}
		for _, node := range now.Nodes {
			if node.NotReady != node.Silent {
				return true
			}
		}
	}
	return false
}

// driver plays cases on a real API server with the controller, without nodes: what their agents
// report is written in their place.
type driver struct {
	client.Client
	cfg *rest.Config
	t   *testing.T
	// stop ends the running controller and waits for it.
	stop    func() error
	now     egressip.Cluster
	numbers map[string]int
}

func startDriver(t *testing.T) *driver {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), v1.AddToScheme(scheme), ovnv1.AddToScheme(scheme)); err != nil {
		t.Fatal(err)
	}
	ctrl.SetLogger(klog.Background())
	env := apiserver.Start(t, apiserver.Options{
		CRDs: []string{"../../../config/crd", "../../../config/egressip"}, Scheme: scheme, DisableAdmission: "ServiceAccount",
	})
	env.Config.QPS = -1 // the tests wait for nothing but the controller
	c, err := client.New(env.Config, client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	d := &driver{Client: c, cfg: env.Config, t: t}
	d.start(t.Context())
	t.Cleanup(func() {
		if err := d.stop(); err != nil {
			t.Errorf("controller: %v", err)
		}
	})
	return d
}

func (d *driver) start(ctx context.Context) {
	// The controller ends when the test says so, not before its clean-up.
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan error, 1)
	go func() {
		ended <- controllers.Run(ctrl.LoggerInto(ctx, klog.Background()), d.cfg, controllers.Options{EgressIPs: true})
	}()
	d.stop = func() error {
		cancel()
		return <-ended
	}
}

// reset removes what the case before has made.
func (d *driver) reset(t *testing.T) {
	t.Helper()
	d.t = t
	if err := d.change(t.Context(), egressip.Cluster{}); err != nil {
		t.Fatal(err)
	}
	d.numbers = make(map[string]int)
	if _, wrong, err := d.Until(t.Context(), func(egressip.State) []string { return nil }); err != nil || len(wrong) > 0 {
		t.Fatalf("the cluster is not empty: %v %v", wrong, err)
	}
}

// refused plays a case whose EgressIPs the API server does not accept.
func (d *driver) refused(t *testing.T, c egressip.Case) (out egressip.Outcome) {
	t.Helper()
	d.reset(t)
	var now egressip.Cluster
	for _, step := range c.Steps {
		var err error
		if now, err = now.After(step.Do); err != nil {
			t.Fatal(err)
		}
		for _, name := range step.Expect().Refused {
			switch err := d.Create(t.Context(), egressIP(name, now.EgressIPs[name])); {
			case apierrors.IsInvalid(err):
				out.Differs = append(out.Differs, err.Error())
			default:
				out.Wrong = append(out.Wrong, fmt.Sprintf("EgressIP %s is not refused as invalid: %v", name, err))
			}
		}
	}
	return out
}

// Do is part of egressip.Player.
func (d *driver) Do(ctx context.Context, step egressip.Step, now egressip.Cluster) error {
	if !step.Restart {
		return d.change(ctx, now)
	}
	if err := d.stop(); err != nil {
		return err
	}
	err := d.change(ctx, now)
	d.start(ctx)
	return err
}

// change makes the cluster another.
func (d *driver) change(ctx context.Context, now egressip.Cluster) error {
	before := d.now
	d.now = now
	return errors.Join(
		each(before.Namespaces, now.Namespaces, func(name string, was, is *egressip.Namespace) error { return d.namespace(ctx, name, was, is) }),
		each(before.Nodes, now.Nodes, func(name string, was, is *egressip.Node) error { return d.node(ctx, name, was, is) }),
		each(before.EgressIPs, now.EgressIPs, func(name string, was, is *egressip.EgressIP) error { return d.egressIP(ctx, name, was, is) }),
	)
}

// each calls do for each name, in order, with what was and is under it.
func each[V any](before, now map[string]V, do func(name string, was, is *V) error) error {
	var names []string
	for name := range before {
		names = append(names, name)
	}
	for name := range now {
		names = append(names, name)
	}
	slices.Sort(names)
	var errs []error
	for _, name := range slices.Compact(names) {
		var was, is *V
		if v, ok := before[name]; ok {
			was = &v
		}
		if v, ok := now[name]; ok {
			is = &v
		}
		if err := do(name, was, is); err != nil {
			errs = append(errs, fmt.Errorf("change %s: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

func (d *driver) namespace(ctx context.Context, name string, was, is *egressip.Namespace) error {
	object := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
	switch {
	case is == nil:
		if err := d.Delete(ctx, object); err != nil {
			return err
		}
		if err := d.Get(ctx, client.ObjectKeyFromObject(object), object); err != nil {
			return client.IgnoreNotFound(err)
		}
		// The rest is otherwise the controller manager's work.
		object.Spec.Finalizers = nil
		return client.IgnoreNotFound(d.SubResource("finalize").Update(ctx, object))
	case was == nil:
		object.Labels = is.Labels
		return d.Create(ctx, object)
	}
	if err := d.Get(ctx, client.ObjectKeyFromObject(object), object); err != nil {
		return err
	}
	object.Labels = is.Labels
	return d.Update(ctx, object)
}

func (d *driver) egressIP(ctx context.Context, name string, was, is *egressip.EgressIP) error {
	switch {
	case is == nil:
		return d.Delete(ctx, &ovnv1.EgressIP{ObjectMeta: metav1.ObjectMeta{Name: name}})
	case was == nil:
		return d.Create(ctx, egressIP(name, *is))
	}
	object := &ovnv1.EgressIP{ObjectMeta: metav1.ObjectMeta{Name: name}}
	before := object.DeepCopy()
	object.Spec = egressIP(name, *is).Spec
	return d.Patch(ctx, object, client.MergeFrom(before))
}

func egressIP(name string, e egressip.EgressIP) *ovnv1.EgressIP {
	return &ovnv1.EgressIP{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       ovnv1.EgressIPSpec{EgressIPs: e.EgressIPs, NamespaceSelector: e.NamespaceSelector, PodSelector: e.PodSelector},
	}
}
