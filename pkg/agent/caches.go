package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"time"

	"github.com/go-logr/logr"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"

	ovnv1 "github.com/egressip-operator/egressip-operator/api/ovn/v1"
	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/internal/apiconn"
	"github.com/egressip-operator/egressip-operator/internal/egressips"
	"github.com/egressip-operator/egressip-operator/pkg/cri"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// retryInterval is the pause before what failed is tried again: a request to an
// API server that did not answer, or does not have our kinds yet, the probes, and
// the subscription to the kernel's changes.
const retryInterval = time.Second

// kubeadmWithin is how long an agent that starts waits for the ConfigMap of kubeadm.
const kubeadmWithin = 5 * time.Second

// cacheOptions keep caches small: they hold only the pods of this node, and of each
// pod only what is needed.
func cacheOptions(node string, daemonSet types.NamespacedName) cache.Options {
	shared := true // what is read from the caches is never changed
	o := cache.Options{
		NewInformer:                  apiconn.NewInformer,
		DefaultTransform:             cache.TransformStripManagedFields(),
		DefaultUnsafeDisableDeepCopy: &shared,
		ByObject: map[client.Object]cache.ByObject{
			&corev1.Pod{}: {
				Field:     fields.OneTermEqualSelector("spec.nodeName", node),
				Transform: stripPod,
			},
			&corev1.Namespace{}: {Transform: stripNamespace},
			&corev1.ConfigMap{}: {
				Namespaces: map[string]cache.Config{metav1.NamespaceSystem: {}},
				Field:      fields.OneTermEqualSelector("metadata.name", egress.KubeadmConfigMap),
				Transform:  stripConfigMap,
			},
			// That of the API server, under the name that it gives it.
			&discoveryv1.EndpointSlice{}: {
				Namespaces: map[string]cache.Config{corev1.NamespaceDefault: {}},
				Field:      fields.OneTermEqualSelector("metadata.name", "kubernetes"),
			},
		},
	}
	if daemonSet.Name != "" {
		o.ByObject[&appsv1.DaemonSet{}] = cache.ByObject{
			Namespaces: map[string]cache.Config{daemonSet.Namespace: {}},
			Field:      fields.OneTermEqualSelector("metadata.name", daemonSet.Name),
		}
	}
	return o
}

// mapper knows Pods, Namespaces, ConfigMaps, DaemonSets and EndpointSlices without discovery, so that an agent can start,
// and wait, without an API server: a new cache immediately maps the kinds that it
// has options for.
type mapper struct{ meta.RESTMapper }

func newMapper(cfg *rest.Config, client *http.Client) (meta.RESTMapper, error) {
	dynamic, err := apiutil.NewDynamicRESTMapper(cfg, client)
	if err != nil {
		return nil, fmt.Errorf("set up the discovery of the API's kinds: %w", err)
	}
	return mapper{dynamic}, nil
}

// RESTMapping returns the resource of a kind.
func (m mapper) RESTMapping(kind schema.GroupKind, versions ...string) (*meta.RESTMapping, error) {
	for resource, known := range map[schema.GroupVersionResource]schema.GroupVersionKind{
		corev1.SchemeGroupVersion.WithResource("pods"):                corev1.SchemeGroupVersion.WithKind("Pod"),
		corev1.SchemeGroupVersion.WithResource("namespaces"):          corev1.SchemeGroupVersion.WithKind("Namespace"),
		corev1.SchemeGroupVersion.WithResource("configmaps"):          corev1.SchemeGroupVersion.WithKind("ConfigMap"),
		appsv1.SchemeGroupVersion.WithResource("daemonsets"):          appsv1.SchemeGroupVersion.WithKind("DaemonSet"),
		discoveryv1.SchemeGroupVersion.WithResource("endpointslices"): discoveryv1.SchemeGroupVersion.WithKind("EndpointSlice"),
	} {
		if kind == known.GroupKind() {
			scope := meta.RESTScopeNamespace
			if kind.Kind == "Namespace" {
				scope = meta.RESTScopeRoot
			}
			return &meta.RESTMapping{Resource: resource, GroupVersionKind: known, Scope: scope}, nil
		}
	}
	return m.RESTMapper.RESTMapping(kind, versions...)
}

// caches hold the objects that concern this node.
type caches struct {
	cache   cache.Cache
	log     logr.Logger
	options Options
	// changed is raised when an object has changed that may concern the node.
	changed signal
	// sandboxes returns the pods that the container runtime has; nil without one.
	sandboxes func() []cri.Pod

	serviceCIDRs bool // the API server has that kind
	// egressIPs are those that are served, with the Namespaces that their selectors are for; nil
	// for none.
	egressIPs *egressips.Source
	// labels are those that pods had last.
	labels lastLabels
	// own is this node's HostSubnet where the cache was found to lag.
	own own
	// kubeadm reports whether the ConfigMap of kubeadm has been read; nil for never.
	kubeadm func() bool
}

// start fills the caches and returns when all have synced, or ctx ends. It waits
// for an API server that cannot be reached or does not have our kinds yet, for
// as long as it takes: meanwhile the kernel works on as the former agent left it.
func (c *caches) start(ctx context.Context, waitsFor func(string)) error {
	for _, kind := range []struct {
		object client.Object
		name   string
	}{
		{&v1.NetNamespace{}, "NetNamespaces"},
		{&v1.HostSubnet{}, "HostSubnets"},
		{&corev1.Pod{}, "this node's Pods"},
		{&discoveryv1.EndpointSlice{}, "the API server's EndpointSlice"},
		{&networkingv1.ServiceCIDR{}, "ServiceCIDRs"},
	} {
		waitsFor("the list of " + kind.name + " from the API server")
		informer, err := c.informer(ctx, kind.object)
		if err != nil {
			return err
		}
		if informer == nil {
			continue
		}
		if _, err := informer.AddEventHandler(c.handler()); err != nil {
			return fmt.Errorf("watch %s: %w", kind.name, err)
		}
		if !toolscache.WaitForCacheSync(ctx.Done(), informer.HasSynced) {
			return ctx.Err()
		}
	}
	if c.egressIPs != nil {
		waitsFor("EgressIPs and Namespaces from the API server")
		select {
		case <-c.egressIPs.Ready():
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return c.startKubeadm(ctx, waitsFor)
}

// startKubeadm waits for the ConfigMap of kubeadm, which there may not be, for a while: an
// agent that may not read it works without, and one that reads it later decides again.
func (c *caches) startKubeadm(ctx context.Context, waitsFor func(string)) error {
	waitsFor("the ConfigMap of kubeadm from the API server")
	informer, err := c.informer(ctx, &corev1.ConfigMap{})
	if err != nil {
		return err
	}
	if _, err := informer.AddEventHandler(c.handler()); err != nil {
		return fmt.Errorf("watch the ConfigMap of kubeadm: %w", err)
	}
	c.kubeadm = informer.HasSynced
	bounded, cancel := context.WithTimeout(ctx, kubeadmWithin)
	defer cancel()
	if !toolscache.WaitForCacheSync(bounded.Done(), informer.HasSynced) && ctx.Err() == nil {
		c.log.Info("cannot read the ConfigMap of kubeadm; going on without", "configMap", metav1.NamespaceSystem+"/"+egress.KubeadmConfigMap)
	}
	return ctx.Err()
}

// informer returns the informer of a kind, once the API server has the kind; nil
// for an optional kind that it does not have.
func (c *caches) informer(ctx context.Context, object client.Object) (cache.Informer, error) {
	_, optional := object.(*networkingv1.ServiceCIDR)
	for attempt := 0; ; attempt++ {
		informer, err := c.cache.GetInformer(ctx, object, cache.BlockUntilSynced(false))
		switch {
		case err == nil:
			c.serviceCIDRs = c.serviceCIDRs || optional
			return informer, nil
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case optional && meta.IsNoMatchError(err):
			c.log.Info("the API server has no ServiceCIDRs (before Kubernetes 1.33): give the service networks by flag, unless kubeadm or OpenShift names them; kubectl egressip networks shows what is known")
			return nil, nil //nolint:nilnil // absence is an answer here
		case attempt == 0:
			c.log.Error(err, "cannot watch yet; trying again, and changing nothing in the kernel until that succeeds",
				"kind", fmt.Sprintf("%T", object))
		}
		t := time.NewTimer(retryInterval)
		select {
		case <-ctx.Done():
			t.Stop()
			return nil, ctx.Err()
		case <-t.C:
		}
	}
}

// handler raises changed for what may concern the node. Most updates do not: a
// thousand agents and the controller write status all the time, and a decision in a
// large cluster takes tens of milliseconds.
func (c *caches) handler() toolscache.ResourceEventHandler {
	return toolscache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { c.changed.raise() },
		DeleteFunc: func(any) { c.changed.raise() },
		UpdateFunc: func(before, after any) {
			if !sameInput(before, after) {
				c.changed.raise()
			}
		},
	}
}

// sameInput reports whether two versions of an object are the same to decide.
func sameInput(before, after any) bool {
	switch b := before.(type) {
	case *corev1.Pod:
		a, ok := after.(*corev1.Pod)
		return ok && samePod(b, a)
	case *corev1.Namespace:
		a, ok := after.(*corev1.Namespace)
		return ok && maps.Equal(b.Labels, a.Labels)
	case *discoveryv1.EndpointSlice:
		a, ok := after.(*discoveryv1.EndpointSlice)
		return ok && slices.Equal(endpointsOf([]discoveryv1.EndpointSlice{*b}), endpointsOf([]discoveryv1.EndpointSlice{*a}))
	case *corev1.ConfigMap:
		a, ok := after.(*corev1.ConfigMap)
		return ok && b.Data[egress.KubeadmKey] == a.Data[egress.KubeadmKey]
	case *networkingv1.ServiceCIDR:
		a, ok := after.(*networkingv1.ServiceCIDR)
		return ok && slices.Equal(b.Spec.CIDRs, a.Spec.CIDRs)
	default:
		return sameObject(before, after)
	}
}

// sameObject is sameInput for the objects that the brain reads.
func sameObject(before, after any) bool {
	switch b := before.(type) {
	case *v1.HostSubnet:
		a, ok := after.(*v1.HostSubnet)
		return ok && b.UID == a.UID && b.Generation == a.Generation && uplinkMTU(b) == uplinkMTU(a) && sameToTheBrain(
			egress.Objects{HostSubnets: []v1.HostSubnet{*b}}, egress.Objects{HostSubnets: []v1.HostSubnet{*a}})
	case *v1.NetNamespace:
		a, ok := after.(*v1.NetNamespace)
		return ok && b.UID == a.UID && b.NetName == a.NetName && sameToTheBrain(
			egress.Objects{NetNamespaces: []v1.NetNamespace{*b}}, egress.Objects{NetNamespaces: []v1.NetNamespace{*a}})
	case *ovnv1.EgressIP:
		a, ok := after.(*ovnv1.EgressIP)
		return ok && b.UID == a.UID && sameToTheBrain(
			egress.Objects{EgressIPs: []ovnv1.EgressIP{*b}}, egress.Objects{EgressIPs: []ovnv1.EgressIP{*a}})
	default:
		return false
	}
}

// sameToTheBrain reports whether the brain reads the same from both. Nothing here
// lists the fields that it reads, so that such a list cannot be out of date.
func sameToTheBrain(before, after egress.Objects) bool {
	was, wrongBefore := egress.Snapshot(before)
	is, wrongAfter := egress.Snapshot(after)
	return reflect.DeepEqual(was.ForRouting(), is.ForRouting()) && slices.Equal(wrongBefore, wrongAfter)
}

// samePod reports whether two pods are equal in everything that the cache keeps.
func samePod(before, after *corev1.Pod) bool {
	same := *before // the cached pod itself must not be changed
	same.ResourceVersion = after.ResourceVersion
	return reflect.DeepEqual(&same, after)
}

// gather reads what the decision rests on. The result is shared with the caches
// and must not be changed.
func (c *caches) gather(ctx context.Context) (input, error) {
	var (
		netNamespaces v1.NetNamespaceList
		hostSubnets   v1.HostSubnetList
		pods          corev1.PodList
		serviceCIDRs  networkingv1.ServiceCIDRList
		apiServers    discoveryv1.EndpointSliceList
		configMaps    corev1.ConfigMapList
	)
	errs := []error{
		c.cache.List(ctx, &netNamespaces),
		c.cache.List(ctx, &hostSubnets),
		c.cache.List(ctx, &pods),
		c.cache.List(ctx, &apiServers),
	}
	if c.serviceCIDRs {
		errs = append(errs, c.cache.List(ctx, &serviceCIDRs))
	}
	if c.kubeadm != nil && c.kubeadm() {
		errs = append(errs, c.cache.List(ctx, &configMaps))
	}
	var namespaces corev1.NamespaceList
	if c.egressIPs.Served() {
		errs = append(errs, c.cache.List(ctx, &namespaces))
	}
	egressIPs, err := c.egressIPs.List(ctx)
	errs = append(errs, err)
	if err := errors.Join(errs...); err != nil {
		return input{}, fmt.Errorf("read the caches: %w", err)
	}
	var sandboxes []cri.Pod
	if c.sandboxes != nil {
		sandboxes = c.sandboxes()
	}
	return input{
		node:          c.options.NodeName,
		netNamespaces: netNamespaces.Items,
		hostSubnets:   c.own.correct(c.options.NodeName, hostSubnets.Items),
		egressIPs:     egressIPs,
		namespaces:    labelsOf(namespaces.Items),
		pods:          c.labels.correct(localPods(pods.Items, sandboxes)),
		serviceCIDRs:  serviceCIDRs.Items,
		apiServers:    apiServers.Items,
		kubeadm:       kubeadmNetworks(configMaps.Items),
		inside:        c.options.Inside,
		included:      c.options.Included,
		podNetworks:   c.options.PodNetworks,
		strict:        c.options.Strict,
	}, nil
}

// ownHostSubnet returns this node's HostSubnet, shared with the cache; nil with an error.
func (c *caches) ownHostSubnet(ctx context.Context) (*v1.HostSubnet, error) {
	var h v1.HostSubnet
	if err := c.cache.Get(ctx, client.ObjectKey{Name: c.options.NodeName}, &h); err != nil {
		return nil, err
	}
	return &h, nil
}

// answered takes this node's HostSubnet from an answer of the API server; nil if it has
// none. current reports that the cache has the same.
func (c *caches) answered(q question, live *v1.HostSubnet) (current bool) {
	current, news := c.own.answer(q, live)
	if news {
		c.log.Info("the API server has another version of this node's HostSubnet than its watch has delivered: taking that one",
			"exists", live != nil, "generation", versionOf(live).generation, "delivered", q.cached.generation)
		c.changed.raise()
	}
	return current
}
