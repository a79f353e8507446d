package controllers

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
	"github.com/egressip-operator/egressip-operator/pkg/online"
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
	// probes tell which hosts answer; nil for none.
	probes *probes
	// verified: the caches were seen to show all that the API had when this
	// term began.
	verified bool
	// hosts and namespaces are written and may not be in the caches yet.
	hosts      overlay[*v1.HostSubnet]
	namespaces overlay[*v1.NetNamespace]
	// heldSince tells since when claims wait for the address's former host.
	heldSince map[netip.Addr]time.Time
	// inUse are the addresses of which it was told that somebody else has them,
	// as host and address.
	inUse map[[2]string]bool
}

func setupCluster(mgr manager.Manager, c common, defaultCapacity int, p *probes) error {
	r := newClusterJob(c, defaultCapacity)
	r.probes = p
	const batch = 10 * time.Millisecond
	b := builder.ControllerManagedBy(mgr).Named("cluster")
	if p != nil {
		b = b.WatchesRawSource(source.Channel(p.changed, wholePass(0)))
	}
	return b.
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
		inUse:           make(map[[2]string]bool),
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
		r.tellInUse(w)
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
	// verdicts say which hosts are online, evacuating which are to be empty, by
	// name.
	verdicts   map[string]online.Verdict
	evacuating map[string]bool
	// votes are what agents say of each host.
	votes map[string]online.Vote
	// capacity and networks are what clouds say of hosts, by name.
	capacity        map[string]int
	networks        map[string]netip.Prefix
	defaultCapacity int
	problems        []egress.Problem
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
	w.judge(byName(nodes.Items), r.probes.words())
	w.lastResort()
	return w, nil
}

// judge fills in what Nodes, probes and agents say of hosts.
func (w *world) judge(nodes map[string]*corev1.Node, probed map[string]online.ProbeState) {
	w.verdicts = make(map[string]online.Verdict, len(w.hosts))
	w.evacuating = make(map[string]bool)
	w.capacity = make(map[string]int)
	w.networks = make(map[string]netip.Prefix)
	w.votes = w.count(nodes, probed)
	for _, h := range w.hosts {
		node := nodes[h.Name]
		e := online.Evidence{Node: wordOfNode(node), Probe: probed[h.Name], Vote: w.votes[h.Name]}
		if was := meta.FindStatusCondition(h.Status.Conditions, v1.ConditionOnline); was != nil {
			e.Judged, e.WasOnline, e.WasReason = true, was.Status == metav1.ConditionTrue, online.Reason(was.Reason)
		}
		w.verdicts[h.Name] = online.Judge(e)
		if node == nil {
			continue
		}
		w.evacuating[h.Name] = node.Annotations[v1.AnnotationEvacuate] == "true"
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

// lastResort has hosts serve before their hold-down is over where no other can.
func (w *world) lastResort() {
	held := make(map[string]bool)
	for name, v := range w.verdicts {
		if v.HeldDown {
			held[name] = true
		}
	}
	if len(held) > 0 {
		maps.Copy(w.verdicts, egress.LastResort(w.cluster(), held))
	}
}

// count counts what agents say of other hosts. The word of one is void where its
// host does not answer, or, where that is not known, its Node is not well.
func (w *world) count(nodes map[string]*corev1.Node, probed map[string]online.ProbeState) map[string]online.Vote {
	if len(probed) == 0 {
		return nil // no verdict depends on votes then
	}
	void := make(map[string]bool)
	ballots := make([]online.Ballot, 0, len(w.hosts))
	for _, h := range w.hosts {
		if h.Status.Agent == nil || len(h.Status.Agent.Watches) == 0 {
			continue
		}
		ballots = append(ballots, online.Ballot{Host: h.Name, Watches: h.Status.Agent.Watches, Silent: h.Status.Agent.Silent})
		word := probed[h.Name]
		void[h.Name] = word != online.ProbeAnswers && (word != online.NotProbed || wordOfNode(nodes[h.Name]) != online.NodeReady)
	}
	return online.Count(ballots, void)
}

// wordOfNode is what the Node says of itself, or the control plane where it has
// fallen silent.
func wordOfNode(node *corev1.Node) online.NodeState {
	if node == nil {
		return online.NodeGone
	}
	for _, condition := range node.Status.Conditions {
		switch {
		case condition.Type != corev1.NodeReady:
		case condition.Status == corev1.ConditionTrue:
			return online.NodeReady
		case condition.Status == corev1.ConditionFalse:
			return online.NodeNotReady
		default:
			return online.NodeUnreachable
		}
	}
	return online.NodeNotReported
}

// decision is what the brain makes of a world.
type decision struct {
	problems   []egress.Problem
	resolution egress.Resolution
	allocation egress.Allocation
}

// decide asks the brain. It changes nothing of w.
func decide(w world) decision {
	cluster, problems := egress.Snapshot(w.objects())
	return decision{
		problems:   slices.Concat(problems, w.problems),
		resolution: egress.Resolve(cluster),
		allocation: egress.Allocate(cluster),
	}
}

func (w *world) cluster() egress.Cluster {
	c, _ := egress.Snapshot(w.objects())
	return c
}

// objects are what the brain knows of the cluster, with what was judged in place of
// what is written.
func (w *world) objects() egress.Objects {
	objects := egress.Objects{
		NetNamespaces: make([]v1.NetNamespace, 0, len(w.namespaces)),
		HostSubnets:   make([]v1.HostSubnet, 0, len(w.hosts)),
		Capacity:      w.capacity, DefaultCapacity: atMost(w.defaultCapacity),
		Networks: w.networks, Closed: make(map[string]bool),
	}
	for _, n := range w.namespaces {
		objects.NetNamespaces = append(objects.NetNamespaces, *n)
	}
	for _, h := range w.hosts {
		judged := *h
		// What is judged now, not what was written before.
		judged.Status.Conditions = slices.DeleteFunc(slices.Clone(h.Status.Conditions), func(c metav1.Condition) bool {
			return c.Type == v1.ConditionOnline || c.Type == v1.ConditionEvacuating
		})
		judged.Status.Conditions = append(judged.Status.Conditions, w.judgement(h)...)
		objects.HostSubnets = append(objects.HostSubnets, judged)
		objects.Closed[h.Name] = w.verdicts[h.Name].Closed
	}
	return objects
}

// judgement is what was judged of a host as conditions, without times: Online
// always, Evacuating while it is.
func (w *world) judgement(h *v1.HostSubnet) []metav1.Condition {
	verdict := w.verdicts[h.Name]
	online := metav1.Condition{
		Type: v1.ConditionOnline, Status: metav1.ConditionFalse, Reason: string(verdict.Reason), Message: verdict.Message,
	}
	if verdict.Online {
		online.Status = metav1.ConditionTrue
	}
	conditions := []metav1.Condition{online}
	if w.evacuating[h.Name] {
		conditions = append(conditions, metav1.Condition{
			Type: v1.ConditionEvacuating, Status: metav1.ConditionTrue, Reason: string(egress.ReasonEvacuated),
			Message: fmt.Sprintf("Annotation %s of the Node asks for it; remove it to end that.", v1.AnnotationEvacuate),
		})
	}
	return conditions
}

func byObjectName[T metav1.Object](a, b T) int {
	return cmp.Compare(a.GetName(), b.GetName())
}

func (w *world) hasNamespace(name string) bool { return w.namespace(name) != nil }

// namespace returns the NetNamespace of that name, or nil.
func (w *world) namespace(name string) *v1.NetNamespace {
	i, ok := slices.BinarySearchFunc(w.namespaces, name, compareName[*v1.NetNamespace])
	if !ok {
		return nil
	}
	return w.namespaces[i]
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
