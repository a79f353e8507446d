package controllers

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	ovnv1 "github.com/egressip-operator/egressip-operator/api/ovn/v1"
	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
	"github.com/egressip-operator/egressip-operator/pkg/online"
)

// probeStates are the results of this controller's probes, by host.
type probeStates map[string]online.Probed

// observer gathers what a decision depends on: the caches, what this controller has
// written and the caches do not show yet, and the results of its probes. It may be
// used by several goroutines.
type observer struct {
	cache client.Reader
	clock clock.PassiveClock
	// probes returns the results at this moment.
	probes func() probeStates
	// self is the address of the node that the controller runs on; the zero value if
	// it is not known.
	self netip.Addr
	// pods knows in which networks the API server has Pods; nil if that is not looked up.
	pods *podLookup
	// networks knows which networks objects name; nil for nothing.
	networks        *networkReader
	defaultCapacity int
	// included are the networks outside to which egress IPs apply; none for all.
	included []netip.Prefix
	// hostRetention is how long a host is kept after its Node, claimRetention how long
	// claims that users wrote are kept without a request.
	hostRetention, claimRetention time.Duration

	// source has the EgressIPs; nil for none.
	source *egressIPs

	mu         sync.Mutex
	hosts      assumeCache[*v1.HostSubnet]
	namespaces assumeCache[*v1.NetNamespace]
	egressIPs  assumeCache[*ovnv1.EgressIP]
	failures   failures
	silence    silence
	// restricted are the hosts that pools select, by pool.
	restricted map[string]*egress.HostSet
}

func newObserver(cache client.Reader, clock clock.PassiveClock, probes func() probeStates, defaultCapacity int) *observer {
	return &observer{
		cache: cache, clock: clock, probes: probes, failures: make(failures), silence: make(silence), defaultCapacity: defaultCapacity,
		hosts: make(assumeCache[*v1.HostSubnet]), namespaces: make(assumeCache[*v1.NetNamespace]), egressIPs: make(assumeCache[*ovnv1.EgressIP]),
	}
}

// noProbes are the results of a controller that does not probe.
func noProbes() probeStates { return nil }

// observe returns what is known at this moment.
func (o *observer) observe(ctx context.Context) (view, error) {
	return o.observeWith(ctx, o.probes())
}

// observeWith is observe for a caller that has read the results of probes already: a
// decision must not depend on two different results.
func (o *observer) observeWith(ctx context.Context, probed probeStates) (view, error) {
	var (
		namespaces v1.NetNamespaceList
		hosts      v1.HostSubnetList
		nodes      corev1.NodeList
	)
	if err := errors.Join(o.cache.List(ctx, &namespaces), o.cache.List(ctx, &hosts), o.cache.List(ctx, &nodes)); err != nil {
		return view{}, fmt.Errorf("read the caches: %w", err)
	}
	egressIPs, err := o.source.list(ctx)
	if err != nil {
		return view{}, err
	}
	pools, err := o.source.pools(ctx)
	if err != nil {
		return view{}, err
	}
	v := view{servesEgressIPs: o.source.served(), included: o.included, defaultCapacity: o.defaultCapacity, retention: o.hostRetention}
	o.mu.Lock()
	for i := range namespaces.Items {
		v.namespaces = append(v.namespaces, o.namespaces.newest(&namespaces.Items[i]))
	}
	for i := range egressIPs {
		v.egressIPs = append(v.egressIPs, o.egressIPs.newest(&egressIPs[i]))
	}
	slices.SortFunc(v.egressIPs, byObjectName)
	for i := range hosts.Items {
		v.hosts = append(v.hosts, o.hosts.newest(&hosts.Items[i]))
	}
	slices.SortFunc(v.namespaces, byObjectName)
	slices.SortFunc(v.hosts, byObjectName)
	now := o.clock.Now()
	o.failures.update(v.hosts, now)
	v.failing, v.changesIn = o.failures.lasting(), o.failures.next(now)
	var next time.Duration
	if v.unheard, next = o.silence.unheard(v.hosts, now); next > 0 && (v.changesIn == 0 || next < v.changesIn) {
		v.changesIn = next
	}
	o.namespaces.prune(func(name string) bool { return v.namespace(name) != nil })
	o.egressIPs.prune(func(name string) bool { return v.egressIP(name) != nil })
	o.hosts.prune(func(name string) bool { return v.host(name) != nil })
	o.pods.prune(func(name string) bool { return v.host(name) != nil })
	o.mu.Unlock()

	byNode := byName(nodes.Items)
	v.readProbes(probed, byNode, o.self)
	v.countVotes(byNode)
	v.judgeHosts(byNode)
	v.readNodes(byNode)
	o.mu.Lock()
	v.onlyOn, o.restricted = restrictions(v.egressIPs, pools, nodes.Items, o.restricted)
	o.mu.Unlock()
	v.readCandidates(byNode)
	v.readNetworks(o.networks, byNode)
	v.podNetworks = make(map[string][]string, len(v.hosts))
	for _, h := range v.hosts {
		v.podNetworks[h.Name] = o.pods.listed(h, v.found[h.Name])
	}
	v.applyLastResort()
	return v, nil
}

// wroteHost remembers a HostSubnet as the API server answered.
func (o *observer) wroteHost(h *v1.HostSubnet) { o.wrote(h) }

// wrote remembers an object as the API server answered.
func (o *observer) wrote(object client.Object) {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch object := object.(type) {
	case *v1.HostSubnet:
		o.hosts.wrote(object)
	case *v1.NetNamespace:
		o.namespaces.wrote(object)
	case *ovnv1.EgressIP:
		o.egressIPs.wrote(object)
	}
}

// newest returns the object, or what was written after it.
func (o *observer) newest(cached client.Object) client.Object {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch cached := cached.(type) {
	case *v1.HostSubnet:
		return o.hosts.newest(cached)
	case *v1.NetNamespace:
		return o.namespaces.newest(cached)
	case *ovnv1.EgressIP:
		return o.egressIPs.newest(cached)
	default:
		return cached
	}
}

// stored returns the newest that is known of one object.
func (o *observer) stored(ctx context.Context, key statusKey) (client.Object, error) {
	object := newObject(key.kind)
	if err := o.cache.Get(ctx, client.ObjectKey{Name: key.name}, object); err != nil {
		return nil, err
	}
	return o.newest(object), nil
}

// judgeHosts decides which hosts are online.
func (v *view) judgeHosts(nodes map[string]*corev1.Node) {
	v.verdicts = make(map[string]online.Verdict, len(v.hosts))
	for _, h := range v.hosts {
		e := online.Evidence{Node: nodeState(nodes[h.Name]), Probe: v.probed[h.Name], Vote: v.votes[h.Name]}
		if was := meta.FindStatusCondition(h.Status.Conditions, v1.ConditionOnline); was != nil {
			e.Judged, e.WasOnline, e.WasReason = true, publishedOnline(was), online.Reason(was.Reason)
		}
		v.verdicts[h.Name] = online.Judge(e)
	}
}

// nodeState is what the Node reports about itself, or the control plane about a Node
// that has stopped reporting.
func nodeState(node *corev1.Node) online.NodeState {
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

// readNodes reads the annotations of Nodes.
func (v *view) readNodes(nodes map[string]*corev1.Node) {
	v.evacuating = make(map[string]bool)
	v.assignable = make(map[string]bool)
	v.capacity = make(map[string]int)
	v.ipv6Capacity = make(map[string]int)
	v.networks = make(map[string][]netip.Prefix)
	v.hostIPs = make(map[string][]string)
	v.gone = make(map[string]bool)
	v.ipv6 = make(map[string][]string)
	v.listed = make(map[string][]string)
	for _, h := range v.hosts {
		node := nodes[h.Name]
		v.hostIPs[h.Name] = hostIPs(h, node)
		if node == nil {
			v.gone[h.Name] = bound(h)
			continue
		}
		v.ipv6[h.Name] = ipv6Networks(node)
		v.listed[h.Name] = listedAddresses(node)
		_, labelled := node.Labels[ovnv1.LabelEgressAssignable]
		v.assignable[h.Name] = labelled && v.servesEgressIPs
		v.evacuating[h.Name] = node.Annotations[v1.AnnotationEvacuate] == "true"
		written := node.Annotations[egress.AnnotationCloudConfig]
		config, err := egress.ParseCloudConfig(written)
		if err != nil {
			v.problems = append(v.problems, egress.Problem{
				Kind: "HostSubnet", Name: h.Name, Field: "annotation of the Node", Value: written, Reason: egress.ReasonBadCIDR,
				Message: fmt.Sprintf("Node %s: %v. The annotation is ignored. Correct or remove it.", h.Name, err),
			})
			continue
		}
		if config.Capacity != 0 {
			v.capacity[h.Name] = atMost(config.Capacity)
		}
		if config.IPv6Capacity != 0 {
			v.ipv6Capacity[h.Name] = atMost(config.IPv6Capacity)
			if config.Capacity == 0 {
				v.capacity[h.Name] = atMost(v.defaultCapacity)
			}
		}
		if len(config.Networks) > 0 {
			v.networks[h.Name] = config.Networks
		}
	}
}

// readNetworks reads which networks objects name. As long as they are not known, what is
// published stays.
func (v *view) readNetworks(reader *networkReader, nodes map[string]*corev1.Node) {
	named, ready := reader.networks()
	if !ready {
		v.found = make(map[string][]v1.FoundNetwork, len(v.hosts))
		for _, h := range v.hosts {
			v.found[h.Name] = h.Status.FoundNetworks
		}
		return
	}
	hosts := make([]string, 0, len(v.hosts))
	named = slices.Clone(named)
	for _, h := range v.hosts {
		hosts = append(hosts, h.Name)
		if node := nodes[h.Name]; node != nil && reader.reads() {
			named = append(named, egress.NodeNetworks(h.Name, node.Annotations)...)
		}
	}
	if reader.reads() {
		named = append(named, egress.FormerAPIServers(v.requested(), v.hosts, named)...)
	}
	v.found = egress.PublishFound(hosts, named)
}

// listedAddresses are the Node's IPv4 addresses for its status, in order.
func listedAddresses(node *corev1.Node) []string {
	var all []string
	for _, address := range node.Status.Addresses {
		internal, external := address.Type == corev1.NodeInternalIP, address.Type == corev1.NodeExternalIP
		ip, err := netip.ParseAddr(address.Address)
		if (internal || external) && err == nil && ip.Is4() && !slices.Contains(all, ip.String()) {
			all = append(all, ip.String())
		}
	}
	slices.Sort(all)
	return all[:min(len(all), egress.MaxAddresses)]
}

// applyLastResort lets hosts serve before their hold-down is over if no other host
// can.
func (v *view) applyLastResort() {
	heldDown := make(map[string]bool)
	for name, verdict := range v.verdicts {
		if verdict.HeldDown {
			heldDown[name] = true
		}
	}
	if len(heldDown) == 0 {
		return
	}
	cluster, _ := egress.Snapshot(v.objects())
	maps.Copy(v.verdicts, egress.LastResort(cluster, heldDown))
}
