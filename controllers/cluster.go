package controllers

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

const (
	// maxRounds bounds the rounds of allocation in one pass; two settle a
	// cluster, more only where someone else writes at the same time.
	maxRounds = 6
	// passEvery repairs what nobody told of, such as a status edited by hand.
	passEvery = 5 * time.Minute
)

// clusterJob takes the decisions that concern the cluster as a whole: who is
// online, who has which egress IP. In each pass it writes, most urgent first,
// hosts that went offline or came back, then claims, then what is only told.
type clusterJob struct {
	common
	defaultCapacity int
	// verified: the caches were seen to show all that the API had when this
	// term began.
	verified bool
	// hosts and namespaces are written and may not be in the caches yet.
	hosts      overlay[*v1.HostSubnet]
	namespaces overlay[*v1.NetNamespace]
	// heldSince tells since when claims wait for the address's former host.
	heldSince map[netip.Addr]time.Time
}

func setupCluster(mgr manager.Manager, c common, defaultCapacity int) error {
	r := newClusterJob(c, defaultCapacity)
	const batch = 10 * time.Millisecond
	return builder.ControllerManagedBy(mgr).Named("cluster").
		WithOptions(controllerOptions()).
		Watches(&v1.NetNamespace{}, wholePass(batch), builder.WithPredicates(unless(sameRequests))).
		Watches(&v1.HostSubnet{}, wholePass(batch), builder.WithPredicates(unless(sameClaims))).
		Watches(&corev1.Node{}, wholePass(batch), builder.WithPredicates(unless(sameNode))).
		Complete(r)
}

func newClusterJob(c common, defaultCapacity int) *clusterJob {
	return &clusterJob{
		common:          c,
		defaultCapacity: defaultCapacity,
		hosts:           make(overlay[*v1.HostSubnet]),
		namespaces:      make(overlay[*v1.NetNamespace]),
		heldSince:       make(map[netip.Addr]time.Time),
	}
}

// Reconcile is one pass.
func (r *clusterJob) Reconcile(ctx context.Context, _ reconcile.Request) (reconcile.Result, error) {
	began := r.clock.Now()
	defer func() { r.metrics.passSeconds.Observe(r.clock.Since(began).Seconds()) }()
	if !r.verified {
		missing, err := r.verify(ctx)
		if err != nil {
			return outcome(0, err)
		}
		if missing != "" {
			log.FromContext(ctx).V(1).Info("the caches lag behind the API; nothing is written yet", "object", missing)
			return reconcile.Result{RequeueAfter: catchUp}, nil
		}
		r.verified = true
	}
	for range maxRounds {
		w, err := r.gather(ctx)
		if err != nil {
			return outcome(0, err)
		}
		began := r.clock.Now()
		d := decide(w)
		r.metrics.allocationSeconds.Observe(r.clock.Since(began).Seconds())
		judged, errOnline := r.publishOnline(ctx, w)
		wrote, held, err := r.allocate(ctx, w, d.allocation)
		failed := errors.Join(errOnline, err)
		switch {
		case apierrors.IsConflict(failed) || (failed != nil && (judged || wrote)):
			return outcome(0, failed)
		case judged || wrote:
			continue // what was released in this round is claimed in the next
		case held:
			// The next rounds of a move come in a moment: telling of its middle
			// would tell of an outage that is none.
			return reconcile.Result{RequeueAfter: catchUp}, nil
		}
		r.metrics.observe(w, d.resolution)
		more, err := r.tell(ctx, w, d)
		if more {
			return outcome(time.Millisecond, failed, err)
		}
		return outcome(passEvery, failed, err)
	}
	return reconcile.Result{RequeueAfter: catchUp}, nil
}

// verify returns which object the caches do not show yet, "" for none. A claim
// that the former leader wrote a moment ago must not be overlooked.
func (r *clusterJob) verify(ctx context.Context) (string, error) {
	var liveHosts, cachedHosts v1.HostSubnetList
	var liveNamespaces, cachedNamespaces v1.NetNamespaceList
	// The API is asked first, so that the caches have the time until then.
	if err := errors.Join(r.live.List(ctx, &liveHosts), r.live.List(ctx, &liveNamespaces)); err != nil {
		return "", fmt.Errorf("list HostSubnets and NetNamespaces: %w", err)
	}
	if err := errors.Join(r.cache.List(ctx, &cachedHosts), r.cache.List(ctx, &cachedNamespaces)); err != nil {
		return "", fmt.Errorf("read the caches: %w", err)
	}
	hosts, namespaces := byName(cachedHosts.Items), byName(cachedNamespaces.Items)
	missing := behind(pointers(liveHosts.Items), func(name string) (*v1.HostSubnet, bool) {
		h, ok := hosts[name]
		return h, ok
	})
	if missing != "" {
		return missing, nil
	}
	return behind(pointers(liveNamespaces.Items), func(name string) (*v1.NetNamespace, bool) {
		n, ok := namespaces[name]
		return n, ok
	}), nil
}

// world is what one round rests on. Nothing of it may be changed: it is shared
// with the caches.
type world struct {
	namespaces []*v1.NetNamespace // in order of name
	hosts      []*v1.HostSubnet   // in order of name
	// health judges each host, by name.
	health map[string]health
	// capacity and networks are what clouds say of hosts, by name.
	capacity        map[string]int
	networks        map[string]netip.Prefix
	defaultCapacity int
	problems        []egress.Problem
}

// health is whether a host is online, and why.
type health struct {
	online          bool
	reason, message string
}

func (r *clusterJob) gather(ctx context.Context) (world, error) {
	var (
		namespaces v1.NetNamespaceList
		hosts      v1.HostSubnetList
		nodes      corev1.NodeList
	)
	if err := errors.Join(r.cache.List(ctx, &namespaces), r.cache.List(ctx, &hosts), r.cache.List(ctx, &nodes)); err != nil {
		return world{}, fmt.Errorf("read the caches: %w", err)
	}
	w := world{defaultCapacity: r.defaultCapacity}
	for i := range namespaces.Items {
		w.namespaces = append(w.namespaces, r.namespaces.newest(&namespaces.Items[i]))
	}
	for i := range hosts.Items {
		w.hosts = append(w.hosts, r.hosts.newest(&hosts.Items[i]))
	}
	slices.SortFunc(w.namespaces, byObjectName)
	slices.SortFunc(w.hosts, byObjectName)
	r.namespaces.prune(w.hasNamespace)
	r.hosts.prune(w.hasHost)
	w.judge(byName(nodes.Items))
	return w, nil
}

// judge fills in what Nodes say of hosts.
func (w *world) judge(nodes map[string]*corev1.Node) {
	w.health = make(map[string]health, len(w.hosts))
	w.capacity = make(map[string]int)
	w.networks = make(map[string]netip.Prefix)
	for _, h := range w.hosts {
		node := nodes[h.Name]
		w.health[h.Name] = healthOf(node)
		if node == nil {
			continue
		}
		config, err := egress.ParseCloudConfig(node.Annotations[egress.AnnotationCloudConfig])
		if err != nil {
			w.problems = append(w.problems, egress.Problem{
				Kind: "HostSubnet", Name: h.Name, Field: "annotation of the Node",
				Value: node.Annotations[egress.AnnotationCloudConfig], Reason: egress.ReasonBadCIDR,
				Message: fmt.Sprintf("Node %s: %v; capacity and network are taken from elsewhere. Correct the annotation, or remove it.", h.Name, err),
			})
			continue
		}
		if config.Capacity != 0 {
			w.capacity[h.Name] = atMost(config.Capacity)
		}
		if config.Network.IsValid() {
			w.networks[h.Name] = config.Network
		}
	}
}

// healthOf judges a host by its Node's own word, or by the control plane's where
// the Node has fallen silent.
func healthOf(node *corev1.Node) health {
	if node == nil {
		return health{reason: "NodeGone", message: "There is no Node of this name."}
	}
	for _, condition := range node.Status.Conditions {
		switch {
		case condition.Type != corev1.NodeReady:
		case condition.Status == corev1.ConditionTrue:
			return health{online: true, reason: "NodeReady", message: "The Node is Ready."}
		case condition.Status == corev1.ConditionFalse:
			return health{reason: "NodeNotReady", message: "The Node says that it is not Ready: see kubectl describe node."}
		default:
			return health{reason: "NodeUnreachable", message: "The Node has stopped posting its status: see kubectl describe node."}
		}
	}
	return health{reason: "NodeNotReady", message: "The Node has not said yet that it is Ready."}
}

// decision is what the brain makes of a world.
type decision struct {
	problems   []egress.Problem
	resolution egress.Resolution
	allocation egress.Allocation
}

// decide asks the brain. It changes nothing of w.
func decide(w world) decision {
	objects := egress.Objects{
		NetNamespaces: make([]v1.NetNamespace, 0, len(w.namespaces)),
		HostSubnets:   make([]v1.HostSubnet, 0, len(w.hosts)),
		Capacity:      w.capacity, DefaultCapacity: atMost(w.defaultCapacity),
		Networks: w.networks,
	}
	for _, n := range w.namespaces {
		objects.NetNamespaces = append(objects.NetNamespaces, *n)
	}
	for _, h := range w.hosts {
		judged := *h
		// What is judged now, not what was written before.
		judged.Status.Conditions = slices.DeleteFunc(slices.Clone(h.Status.Conditions),
			func(c metav1.Condition) bool { return c.Type == v1.ConditionOnline })
		judged.Status.Conditions = append(judged.Status.Conditions, w.health[h.Name].condition())
		objects.HostSubnets = append(objects.HostSubnets, judged)
	}
	cluster, problems := egress.Snapshot(objects)
	return decision{
		problems:   slices.Concat(problems, w.problems),
		resolution: egress.Resolve(cluster),
		allocation: egress.Allocate(cluster),
	}
}

// condition is the judgement as a condition Online, without a time.
func (j health) condition() metav1.Condition {
	c := metav1.Condition{Type: v1.ConditionOnline, Status: metav1.ConditionFalse, Reason: j.reason, Message: j.message}
	if j.online {
		c.Status = metav1.ConditionTrue
	}
	return c
}

func byObjectName[T metav1.Object](a, b T) int {
	return cmp.Compare(a.GetName(), b.GetName())
}

func (w *world) hasNamespace(name string) bool {
	_, ok := slices.BinarySearchFunc(w.namespaces, name, compareName[*v1.NetNamespace])
	return ok
}

func (w *world) hasHost(name string) bool { return w.host(name) != nil }

// host returns the HostSubnet of that name, or nil.
func (w *world) host(name string) *v1.HostSubnet {
	i, ok := slices.BinarySearchFunc(w.hosts, name, compareName[*v1.HostSubnet])
	if !ok {
		return nil
	}
	return w.hosts[i]
}

func compareName[T metav1.Object](object T, name string) int {
	return cmp.Compare(object.GetName(), name)
}
