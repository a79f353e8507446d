package conformance_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/controllers"
	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/internal/testenv/apiserver"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
	"github.com/egressip-operator/egressip-operator/test/conformance"
)

// cluster is a real API server with the controller, without nodes: a Node
// object and its condition Ready stand for each.
type cluster struct {
	client.Client
	cfg *rest.Config
	env *envtest.Environment
	// controller ends the running controller and waits for it; nil where none
	// runs.
	controller func() error
}

// settleWithin bounds the wait for what the controller does.
const settleWithin = testenv.Patience

func startCluster(t *testing.T) *cluster {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), v1.AddToScheme(scheme)); err != nil {
		t.Fatal(err)
	}
	ctrl.SetLogger(klog.Background())
	c := &cluster{env: apiserver.Start(t, apiserver.Options{
		CRDs: []string{"../../config/crd"}, Scheme: scheme,
		// Nodes and namespaces come and go here as a scenario says, and no sooner.
		DisableAdmission: "ServiceAccount",
	})}
	c.cfg = c.env.Config
	c.cfg.QPS = -1 // the tests wait for nothing but the controller
	var err error
	if c.Client, err = client.New(c.cfg, client.Options{Scheme: scheme}); err != nil {
		t.Fatal(err)
	}
	c.startController(t.Context())
	t.Cleanup(func() {
		if err := c.stopController(); err != nil {
			t.Errorf("controller: %v", err)
		}
	})
	return c
}

func (c *cluster) stopController() error {
	if c.controller == nil {
		return nil
	}
	stop := c.controller
	c.controller = nil
	return stop()
}

func (c *cluster) startController(ctx context.Context) {
	// The controller ends when the test says so, not before its clean-up.
	ctx, stop := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan error, 1)
	go func() {
		ended <- controllers.Run(ctrl.LoggerInto(ctx, klog.Background()), c.cfg, controllers.Options{})
	}()
	c.controller = func() error {
		stop()
		return <-ended
	}
}

func (c *cluster) restartController(ctx context.Context, meanwhile func() error) error {
	if err := c.stopController(); err != nil {
		return err
	}
	err := meanwhile()
	c.startController(ctx)
	return err
}

// driver plays scenarios on a cluster. Every HostSubnet stands for a Node: the
// controller makes it, and the scenario says what the Node is like.
type driver struct {
	*cluster
	t *testing.T
	// mode is the annotation that namespaces get.
	mode string
	// clouds are the annotations of Nodes to come.
	clouds map[string]string
	// offline are the Nodes that are not Ready.
	offline map[string]bool
	// atOnce: the controller is away while steps follow each other whose
	// outcome is not compared, and finds them all when it comes back.
	atOnce bool
}

func newDriver(t *testing.T, c *cluster, profile string) *driver {
	t.Helper()
	mode := v1.ModeBalanced
	if profile == conformance.FirstAvailable {
		mode = v1.ModeOrdered
	}
	d := &driver{cluster: c, t: t, mode: mode, clouds: make(map[string]string), offline: make(map[string]bool)}
	t.Cleanup(d.clear)
	return d
}

// clear removes all that the scenario made, so that the next finds an empty
// cluster.
func (d *driver) clear() {
	ctx := context.WithoutCancel(d.t.Context())
	if d.controller == nil {
		d.startController(ctx)
	}
	err := errors.Join(
		d.DeleteAllOf(ctx, &corev1.Node{}),
		d.DeleteAllOf(ctx, &v1.NetNamespace{}),
	)
	if err != nil {
		d.t.Errorf("clear the cluster: %v", err)
	}
	d.eventually(ctx, "the cluster to be empty", func() (bool, error) {
		var hosts v1.HostSubnetList
		if err := d.List(ctx, &hosts); err != nil {
			return false, err
		}
		for i := range hosts.Items {
			// Those without a Node are the administrator's, which is us.
			if hosts.Items[i].Annotations[v1.AnnotationNodeUID] == "" {
				if err := client.IgnoreNotFound(d.Delete(ctx, &hosts.Items[i])); err != nil {
					return false, err
				}
			}
		}
		return len(hosts.Items) == 0, nil
	})
}

// eventually waits until done, and fails the test otherwise.
func (d *driver) eventually(ctx context.Context, what string, done func() (bool, error)) {
	d.t.Helper()
	if wrong := testenv.Await(ctx, settleWithin, func(context.Context) string {
		is, err := done()
		switch {
		case err != nil:
			return err.Error()
		case !is:
			return "not yet"
		}
		return ""
	}); wrong != "" {
		d.t.Errorf("wait for %s: %s", what, wrong)
	}
}

// Player is part of conformance.Driver.
func (d *driver) Player() conformance.Player { return conformance.OnAPIServer }

// Do is part of conformance.Driver. A request that the API server refuses as
// invalid changes nothing, as is then seen.
func (d *driver) Do(ctx context.Context, step conformance.Step) error {
	switch away := d.atOnce && step.When == conformance.Instant; {
	case away:
		if err := d.stopController(); err != nil {
			return err
		}
	case d.controller == nil:
		d.startController(ctx)
	}
	err := d.do(ctx, step)
	if apierrors.IsInvalid(err) {
		d.t.Logf("%s %s is refused: %v", step.Op, step.Name, err)
		return nil
	}
	return err
}

func (d *driver) do(ctx context.Context, step conformance.Step) error {
	switch step.Op {
	case "create-node":
		// The Node comes with its HostSubnet, which the controller would make
		// at once.
		d.clouds[step.Name] = conformance.CloudConfig(step)
		return nil
	case "create-hostsubnet":
		return d.createHost(ctx, step)
	case "patch-hostsubnet":
		if step.HostIP != nil {
			if err := d.setAddress(ctx, step.Name, *step.HostIP); err != nil {
				return err
			}
		}
		return d.patchHost(ctx, step)
	case "delete-hostsubnet":
		return d.deleteHost(ctx, step.Name)
	case "create-netnamespace":
		return d.Create(ctx, &v1.NetNamespace{
			ObjectMeta: metav1.ObjectMeta{Name: step.Name, Annotations: map[string]string{v1.AnnotationMode: d.mode}},
			NetName:    step.Name, NetID: step.NetID, EgressIPs: listOf(step.EgressIPs),
		})
	case "patch-netnamespace":
		return d.patchNamespace(ctx, step)
	case "delete-netnamespace":
		return d.Delete(ctx, &v1.NetNamespace{ObjectMeta: metav1.ObjectMeta{Name: step.Name}})
	case "node-offline":
		d.offline[step.Name] = true
		return d.setReady(ctx, step.Name, false)
	case "node-online":
		delete(d.offline, step.Name)
		return d.setReady(ctx, step.Name, true)
	case "restart":
		return d.restartController(ctx, func() error { return nil })
	case "settle":
		return nil
	default:
		return fmt.Errorf("unknown operation %q", step.Op)
	}
}

func (d *driver) createHost(ctx context.Context, step conformance.Step) error {
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: step.Name}}
	if cloud := d.clouds[step.Name]; cloud != "" {
		node.Annotations = map[string]string{egress.AnnotationCloudConfig: cloud}
	}
	if err := d.Create(ctx, node); err != nil {
		return err
	}
	if err := errors.Join(d.setAddress(ctx, step.Name, *step.HostIP), d.setReady(ctx, step.Name, true)); err != nil {
		return err
	}
	if d.controller == nil {
		return d.Create(ctx, &v1.HostSubnet{
			ObjectMeta: metav1.ObjectMeta{Name: step.Name, Annotations: map[string]string{v1.AnnotationNodeUID: string(node.UID)}},
			Host:       step.Name, HostIP: *step.HostIP, EgressIPs: listOf(step.EgressIPs), EgressCIDRs: listOf(step.EgressCIDRs),
		})
	}
	d.eventually(ctx, "HostSubnet "+step.Name, func() (bool, error) {
		err := d.Get(ctx, types.NamespacedName{Name: step.Name}, &v1.HostSubnet{})
		return err == nil, client.IgnoreNotFound(err)
	})
	return d.patchHost(ctx, step)
}

// deleteHost deletes the Node, and the controller its HostSubnet.
func (d *driver) deleteHost(ctx context.Context, name string) error {
	if err := d.Delete(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}); err != nil {
		return err
	}
	if d.controller == nil {
		return nil
	}
	d.eventually(ctx, "HostSubnet "+name+" to go", func() (bool, error) {
		err := d.Get(ctx, types.NamespacedName{Name: name}, &v1.HostSubnet{})
		return apierrors.IsNotFound(err), client.IgnoreNotFound(err)
	})
	return nil
}

// listOf is a list that may not be given.
func listOf(list *[]string) []string {
	if list == nil {
		return nil
	}
	return *list
}

func (d *driver) setAddress(ctx context.Context, name, ip string) error {
	return d.patchNode(ctx, name, map[string]any{"addresses": []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: ip}}})
}

func (d *driver) setReady(ctx context.Context, name string, ready bool) error {
	status := corev1.ConditionFalse
	if ready {
		status = corev1.ConditionTrue
	}
	return d.patchNode(ctx, name, map[string]any{"conditions": []corev1.NodeCondition{{Type: corev1.NodeReady, Status: status}}})
}

func (d *driver) patchNode(ctx context.Context, name string, status map[string]any) error {
	return d.mergeStatus(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}, status)
}

func (d *driver) mergeStatus(ctx context.Context, object client.Object, status map[string]any) error {
	data, err := json.Marshal(map[string]any{"status": status})
	if err != nil {
		return err
	}
	return d.Status().Patch(ctx, object, client.RawPatch(types.MergePatchType, data))
}

// merge is what kubectl patch --type=merge does.
func (d *driver) merge(ctx context.Context, object client.Object, fields map[string]any) error {
	data, err := json.Marshal(fields)
	if err != nil {
		return err
	}
	return d.Patch(ctx, object, client.RawPatch(types.MergePatchType, data))
}

func (d *driver) patchHost(ctx context.Context, step conformance.Step) error {
	fields := make(map[string]any)
	if step.EgressIPs != nil {
		fields["egressIPs"] = *step.EgressIPs
	}
	if step.EgressCIDRs != nil {
		fields["egressCIDRs"] = *step.EgressCIDRs
	}
	return d.merge(ctx, &v1.HostSubnet{ObjectMeta: metav1.ObjectMeta{Name: step.Name}}, fields)
}

func (d *driver) patchNamespace(ctx context.Context, step conformance.Step) error {
	fields := make(map[string]any)
	if step.EgressIPs != nil {
		fields["egressIPs"] = *step.EgressIPs
	}
	if step.NetID != nil {
		fields["netid"] = *step.NetID
	}
	return d.merge(ctx, &v1.NetNamespace{ObjectMeta: metav1.ObjectMeta{Name: step.Name}}, fields)
}

// projectAdmin is a user who may do everything in one namespace and nothing
// beyond.
func (c *cluster) projectAdmin(ctx context.Context, t *testing.T) client.Client {
	t.Helper()
	user, err := c.env.AddUser(envtest.User{Name: "project-admin", Groups: []string{"system:authenticated"}}, c.cfg)
	if err != nil {
		t.Fatal(err)
	}
	binding := &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "project-admin", Namespace: "default"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "admin"},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "User", Name: "project-admin"}},
	}
	if err := client.IgnoreAlreadyExists(c.Create(ctx, binding)); err != nil {
		t.Fatal(err)
	}
	admin, err := client.New(user.Config(), client.Options{Scheme: c.Scheme()})
	if err != nil {
		t.Fatal(err)
	}
	return admin
}
