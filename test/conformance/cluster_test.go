package conformance_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/controllers"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
	"github.com/egressip-operator/egressip-operator/test/conformance"
	"github.com/egressip-operator/egressip-operator/test/tools"
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

const (
	settleWithin = 30 * time.Second
	pollEvery    = 20 * time.Millisecond
)

func startCluster(t *testing.T) *cluster {
	t.Helper()
	binaries, err := tools.Dir(t.Context(), tools.APIServer()...)
	if err != nil {
		t.Fatalf("build the API server: %v", err)
	}
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), v1.AddToScheme(scheme)); err != nil {
		t.Fatal(err)
	}
	ctrl.SetLogger(klog.Background())
	c := &cluster{env: &envtest.Environment{
		BinaryAssetsDirectory: binaries,
		CRDDirectoryPaths:     []string{"../../config/crd"},
		ErrorIfCRDPathMissing: true,
		Scheme:                scheme,
		// The machine may be busy with other tests.
		ControlPlaneStartTimeout: 2 * time.Minute,
		ControlPlaneStopTimeout:  time.Minute,
	}}
	c.env.ControlPlane.GetAPIServer().Err = io.Discard
	// Nodes and namespaces come and go here as a scenario says, and no sooner.
	c.env.ControlPlane.GetAPIServer().Configure().Append("disable-admission-plugins", "ServiceAccount")
	c.cfg, err = c.env.Start()
	t.Cleanup(func() {
		if err := c.env.Stop(); err != nil {
			t.Errorf("stop the API server: %v", err)
		}
	})
	if err != nil {
		t.Fatalf("start the API server: %v", err)
	}
	c.cfg.QPS = -1 // the tests wait for nothing but the controller
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
	// outcome is not looked at, and finds them all when it comes back.
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
	err := wait.PollUntilContextTimeout(ctx, pollEvery, settleWithin, true, func(context.Context) (bool, error) { return done() })
	if err != nil {
		d.t.Errorf("wait for %s: %v", what, err)
	}
}

// Instant is part of conformance.Driver: the controller does not wait to be
// looked at.
func (d *driver) Instant() bool { return false }

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
		if err := d.Delete(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: step.Name}}); err != nil {
			return err
		}
		if d.controller == nil {
			return nil
		}
		d.eventually(ctx, "HostSubnet "+step.Name+" to go", func() (bool, error) {
			err := d.Get(ctx, types.NamespacedName{Name: step.Name}, &v1.HostSubnet{})
			return apierrors.IsNotFound(err), client.IgnoreNotFound(err)
		})
		return nil
	case "create-netnamespace":
		return d.Create(ctx, &v1.NetNamespace{
			ObjectMeta: metav1.ObjectMeta{Name: step.Name, Annotations: map[string]string{v1.AnnotationMode: d.mode}},
			NetName:    step.Name, NetID: *step.NetID, EgressIPs: *step.EgressIPs,
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
	case "reallocate":
		return conformance.ErrNotHere
	default:
		return fmt.Errorf("operation %q is not known", step.Op)
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
			Host:       step.Name, HostIP: *step.HostIP, EgressIPs: *step.EgressIPs, EgressCIDRs: *step.EgressCIDRs,
		})
	}
	d.eventually(ctx, "HostSubnet "+step.Name, func() (bool, error) {
		err := d.Get(ctx, types.NamespacedName{Name: step.Name}, &v1.HostSubnet{})
		return err == nil, client.IgnoreNotFound(err)
	})
	return d.patchHost(ctx, step)
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

// Until is part of conformance.Driver. It waits until the controller has done
// all that it is going to do about the objects as they stand; only then is the
// state compared.
func (d *driver) Until(ctx context.Context, done func(conformance.State) []string) (conformance.State, []string, error) {
	var state conformance.State
	if d.controller == nil {
		return state, nil, nil
	}
	wrong := []string{"the state was never seen"}
	err := wait.PollUntilContextTimeout(ctx, pollEvery, settleWithin, true, func(ctx context.Context) (bool, error) {
		seen, err := d.look(ctx)
		if err != nil {
			return false, err
		}
		if busy := seen.busy(d); busy != "" {
			wrong = []string{"the controller is not done: " + busy}
			return false, nil
		}
		state = seen.state(d)
		wrong = done(state)
		// It is quiet: what is wrong now stays wrong, unless the lists were read
		// while something changed between them.
		again, err := d.look(ctx)
		return err == nil && again.versions() == seen.versions(), err
	})
	if wait.Interrupted(err) {
		err = nil
	}
	return state, wrong, err
}

// seen is what the API holds.
type seen struct {
	namespaces []v1.NetNamespace
	hosts      []v1.HostSubnet
	nodes      []corev1.Node
}

func (d *driver) look(ctx context.Context) (seen, error) {
	var namespaces v1.NetNamespaceList
	var hosts v1.HostSubnetList
	var nodes corev1.NodeList
	if err := errors.Join(d.List(ctx, &namespaces), d.List(ctx, &hosts), d.List(ctx, &nodes)); err != nil {
		return seen{}, err
	}
	// Namespaces that the API server makes for itself are not of the scenario.
	system := func(n v1.NetNamespace) bool { return n.Annotations[v1.AnnotationMode] == "" }
	return seen{namespaces: slices.DeleteFunc(namespaces.Items, system), hosts: hosts.Items, nodes: nodes.Items}, nil
}

func (s seen) versions() string {
	var all []string
	for _, n := range s.namespaces {
		all = append(all, n.Name+n.ResourceVersion)
	}
	for _, h := range s.hosts {
		all = append(all, h.Name+h.ResourceVersion)
	}
	return fmt.Sprint(all)
}

// busy says what the controller has still to do: statuses that do not speak of
// the objects as they stand, or claims that are not where the allocation wants
// them.
func (s seen) busy(d *driver) string {
	objects := egress.Objects{NetNamespaces: s.namespaces, HostSubnets: s.hosts}
	ips := make(map[string]string)
	for _, node := range s.nodes {
		for _, address := range node.Status.Addresses {
			ips[node.Name] = address.Address
		}
	}
	for _, h := range s.hosts {
		if ips[h.Name] != h.HostIP {
			return fmt.Sprintf("HostSubnet %s has hostIP %s, its Node %s", h.Name, h.HostIP, ips[h.Name])
		}
		online := condition(h.Status.Conditions, v1.ConditionOnline)
		if online == nil || (online.Status == metav1.ConditionFalse) != d.offline[h.Name] {
			return fmt.Sprintf("HostSubnet %s is not said to be as online as its Node", h.Name)
		}
		config, err := egress.ParseCloudConfig(d.clouds[h.Name])
		if err != nil {
			return err.Error()
		}
		addCloud(&objects, h.Name, config)
	}
	resolved, _ := egress.Snapshot(objects)
	for _, claims := range egress.Allocate(resolved).Hosts {
		i := slices.IndexFunc(s.hosts, func(h v1.HostSubnet) bool { return h.Name == claims.Host })
		if len(claims.Claims) != len(s.hosts[i].EgressIPs) {
			return fmt.Sprintf("HostSubnet %s lists %v instead of %v", claims.Host, s.hosts[i].EgressIPs, claims.Claims)
		}
		for _, ip := range claims.Claims {
			if !slices.Contains(s.hosts[i].EgressIPs, ip.String()) {
				return fmt.Sprintf("HostSubnet %s lists %v instead of %v", claims.Host, s.hosts[i].EgressIPs, claims.Claims)
			}
		}
	}
	return s.untold(egress.Resolve(resolved))
}

// untold says which status is not of the objects as they stand.
func (s seen) untold(resolution egress.Resolution) string {
	for _, n := range s.namespaces {
		i := slices.IndexFunc(resolution.Namespaces, func(r egress.NamespaceResult) bool { return r.Name == n.Name })
		result := resolution.Namespaces[i]
		if len(result.Requests) == 0 {
			if len(n.Status.EgressIPs) > 0 {
				return fmt.Sprintf("NetNamespace %s has the status of a request", n.Name)
			}
			continue
		}
		if n.Status.ObservedGeneration != n.Generation || len(n.Status.EgressIPs) != len(result.Requests) {
			return fmt.Sprintf("NetNamespace %s has the status of generation %d", n.Name, n.Status.ObservedGeneration)
		}
		for j, r := range result.Requests {
			told := n.Status.EgressIPs[j]
			if told.IP != r.IP || told.Host != r.Host || string(told.State) != string(r.State) || told.Reason != string(r.Reason) {
				return fmt.Sprintf("NetNamespace %s tells %+v instead of %+v", n.Name, told, r)
			}
		}
	}
	return ""
}

func addCloud(objects *egress.Objects, name string, config egress.CloudConfig) {
	if objects.Capacity == nil {
		objects.Capacity = make(map[string]int)
		objects.Networks = make(map[string]netip.Prefix)
	}
	if config.Capacity != 0 {
		objects.Capacity[name] = config.Capacity
	}
	if config.Network.IsValid() {
		objects.Networks[name] = config.Network
	}
}

// state is what the API tells of who has which egress IP: statuses and lists
// alone, as an administrator sees them.
func (s seen) state(d *driver) conformance.State {
	state := conformance.State{
		Assignments: make(map[string]string),
		Active:      make(map[string]any),
		HostSubnets: make(map[string][]string),
		Requests:    make(map[string][]string),
		Conflicts:   make(map[string]string),
		Online:      make(map[string]bool),
	}
	for _, h := range s.hosts {
		state.HostSubnets[h.Name] = slices.Clone(h.EgressIPs)
		state.Online[h.Name] = !d.offline[h.Name]
	}
	for _, n := range s.namespaces {
		state.Requests[n.Name] = slices.Clone(n.EgressIPs)
		var active []string
		for _, r := range n.Status.EgressIPs {
			if conflict := conformance.ConflictOf(egress.Reason(r.Reason)); conflict != "" {
				state.Conflicts[r.IP] = conflict
			}
			switch r.State {
			case v1.StateActive:
				active = append(active, r.IP+"@"+r.Host)
				state.Assignments[r.IP] = r.Host
			case v1.StateStandby, v1.StateHostOffline:
				state.Assignments[r.IP] = r.Host
			default:
				// Nobody bears it.
			}
		}
		ready := condition(n.Status.Conditions, v1.ConditionEgressReady)
		switch {
		case len(n.EgressIPs) == 0:
			state.Active[n.Name] = "none"
		case len(active) == 0:
			state.Active[n.Name] = "dropped"
		default:
			state.Active[n.Name] = active
		}
		if len(n.EgressIPs) > 0 && (ready == nil || (ready.Status == metav1.ConditionTrue) != (len(active) > 0)) {
			state.Broken = append(state.Broken, fmt.Sprintf("condition EgressReady of %s is %v, active are %v", n.Name, ready, active))
		}
	}
	return state
}

func condition(conditions []metav1.Condition, kind string) *metav1.Condition {
	for i := range conditions {
		if conditions[i].Type == kind {
			return &conditions[i]
		}
	}
	return nil
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
