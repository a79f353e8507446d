package controllers

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// recheck is the pause before something is looked at again that others must change.
const recheck = time.Minute

// hostSubnets keeps a HostSubnet for each Node, and for some time after its Node.
type hostSubnets struct {
	deps
	// retention is how long a HostSubnet is kept after its Node.
	retention time.Duration
	told      *told
}

// hostSubnetWorkers is how many HostSubnets are worked on at a time: one whose write gets no
// answer holds up no other. They see each other through the cache only, which lags in any case.
const hostSubnetWorkers = 8

func setupHostSubnets(mgr manager.Manager, d deps, retention time.Duration) error {
	options := controllerOptions()
	options.MaxConcurrentReconciles = hostSubnetWorkers
	return builder.ControllerManagedBy(mgr).Named("hostsubnets").
		WithOptions(options).
		Watches(&corev1.Node{}, &handler.EnqueueRequestForObject{}, builder.WithPredicates(unless(sameNode))).
		Watches(&v1.HostSubnet{}, &handler.EnqueueRequestForObject{}, builder.WithPredicates(unless(sameFields))).
		Complete(d.gate.guard(newHostSubnets(d, retention)))
}

func newHostSubnets(d deps, retention time.Duration) *hostSubnets {
	return &hostSubnets{deps: d, retention: retention, told: newTold()}
}

// Reconcile makes one HostSubnet match its Node.
func (r *hostSubnets) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	node, h := &corev1.Node{}, &v1.HostSubnet{}
	if err := r.cache.Get(ctx, request.NamespacedName, node); apierrors.IsNotFound(err) {
		node = nil
	} else if err != nil {
		return reconcile.Result{}, fmt.Errorf("read Node %s from the cache: %w", request.Name, err)
	}
	if err := r.cache.Get(ctx, request.NamespacedName, h); apierrors.IsNotFound(err) {
		if node == nil {
			r.told.forget(request.Name)
		}
		return r.create(ctx, node)
	} else if err != nil {
		return reconcile.Result{}, fmt.Errorf("read HostSubnet %s from the cache: %w", request.Name, err)
	}
	if !h.DeletionTimestamp.IsZero() {
		return reconcile.Result{}, nil // its deletion is seen, and then it is created again
	}
	switch b := nodeBond(h, node); b.Binding() {
	case egress.BindingLeave:
		return reconcile.Result{}, nil
	case egress.BindingDoubtful:
		r.told.warn(r.recorder, h, eventKept, doubtful(b, "a Node", settings(h)))
		return reconcile.Result{}, nil
	case egress.BindingOrphaned:
		return r.retain(ctx, h)
	default:
		return r.update(ctx, node, h, b)
	}
}

func nodeBond(h *v1.HostSubnet, node *corev1.Node) egress.Bond {
	if node == nil {
		return bondOf(h, v1.AnnotationNodeUID, "")
	}
	return bondOf(h, v1.AnnotationNodeUID, node.UID)
}

// create creates the HostSubnet of a Node that has a usable InternalIP. A Node without
// one is reconciled again when it gets one. It is bound at once.
func (r *hostSubnets) create(ctx context.Context, node *corev1.Node) (reconcile.Result, error) {
	if node == nil || !node.DeletionTimestamp.IsZero() {
		return reconcile.Result{}, nil
	}
	h := &v1.HostSubnet{ObjectMeta: metav1.ObjectMeta{Name: node.Name}}
	choice, err := r.chooseHostIP(ctx, h, node)
	if err != nil {
		return reconcile.Result{}, err
	}
	if !choice.IP.IsValid() && choice.Why != "" {
		r.told.warn(r.recorder, node, eventAddressRefused, refusal(node, choice))
		return reconcile.Result{RequeueAfter: recheck}, nil
	}
	if !choice.IP.IsValid() {
		log.FromContext(ctx).Info("no HostSubnet is created: the Node has no InternalIP of IPv4, nor a global one of IPv6", "node", node.Name)
		return reconcile.Result{}, nil
	}
	fill(h, node, choice)
	switch err := r.writer.Create(ctx, h); {
	case apierrors.IsAlreadyExists(err):
		return reconcile.Result{}, nil // the cache will show it
	case err != nil:
		return result(0, fmt.Errorf("create HostSubnet %s: %w", node.Name, err))
	}
	// At once: if the Node went before that, the object would count as an administrator's.
	if err := bindCreated(ctx, r.writer, h, v1.AnnotationNodeUID, node.UID); err != nil {
		return result(0, fmt.Errorf("bind HostSubnet %s to its Node: %w", node.Name, err))
	}
	return reconcile.Result{}, nil
}

// update binds the HostSubnet to its Node, and copies what the Node reports. Another
// Node of that name takes over what users wrote for the former one.
func (r *hostSubnets) update(ctx context.Context, node *corev1.Node, h *v1.HostSubnet, b egress.Bond) (reconcile.Result, error) {
	choice, err := r.chooseHostIP(ctx, h, node)
	if err != nil {
		return reconcile.Result{}, err
	}
	var wait time.Duration
	if choice.Why != "" {
		r.told.warn(r.recorder, h, eventAddressRefused, refusal(node, choice))
		wait = recheck
	}
	wanted := h.DeepCopy()
	fill(wanted, node, choice)
	bind(&wanted.ObjectMeta, v1.AnnotationNodeUID, node.UID)
	if equality.Semantic.DeepEqual(wanted, h) {
		return result(wait)
	}
	if err := r.writer.Patch(ctx, wanted, client.MergeFromWithOptions(h, client.MergeFromWithOptimisticLock{})); err != nil {
		return result(wait, unlessGone(fmt.Errorf("update HostSubnet %s: %w", h.Name, err)))
	}
	if b.Binding() == egress.BindingAdopt {
		r.told.warn(r.recorder, h, eventKept, adopted(b, "a Node", settings(h)))
	}
	return result(wait)
}

// retain keeps a HostSubnet whose Node is gone for as long as configured, and then
// deletes it.
func (r *hostSubnets) retain(ctx context.Context, h *v1.HostSubnet) (reconcile.Result, error) {
	if left := r.retainedFor(h); left > 0 {
		return reconcile.Result{RequeueAfter: left}, nil
	}
	// Deletion cannot be undone, so it depends on the API itself.
	var live v1.HostSubnet
	if err := r.live.Get(ctx, client.ObjectKeyFromObject(h), &live); err != nil {
		return result(0, unlessGone(fmt.Errorf("read HostSubnet %s: %w", h.Name, err)))
	}
	err := r.live.Get(ctx, client.ObjectKeyFromObject(h), &corev1.Node{})
	if client.IgnoreNotFound(err) != nil {
		return reconcile.Result{}, fmt.Errorf("read Node %s: %w", h.Name, err)
	}
	if err == nil || nodeBond(&live, nil).Binding() != egress.BindingOrphaned || r.retainedFor(&live) > 0 {
		return reconcile.Result{}, nil // the cache lags: it will show it
	}
	if err := r.writer.Delete(ctx, &live, identity(live.UID, live.ResourceVersion)); err != nil {
		return result(0, unlessGone(fmt.Errorf("delete HostSubnet %s: %w", h.Name, err)))
	}
	log.FromContext(ctx).Info("deleted the HostSubnet of a Node that is gone", "hostSubnet", h.Name, "contents", settings(&live))
	r.recorder.Eventf(&live, corev1.EventTypeNormal, eventDeleted, "Node %s is gone since %s or longer: its HostSubnet is deleted. It had %s.",
		h.Name, r.retention, settings(&live))
	return reconcile.Result{}, nil
}

// retainedFor is how much longer a HostSubnet without a Node is kept. It is gone since
// its condition NodeGone says so; until the condition is there, its time has not begun.
func (r *hostSubnets) retainedFor(h *v1.HostSubnet) time.Duration {
	if r.retention == 0 {
		return 0
	}
	gone := meta.FindStatusCondition(h.Status.Conditions, v1.ConditionNodeGone)
	if gone == nil || gone.Status != metav1.ConditionTrue {
		return recheck
	}
	return gone.LastTransitionTime.Add(r.retention).Sub(r.clock.Now())
}

// settings are what users wrote into a HostSubnet, for messages.
func settings(h *v1.HostSubnet) string {
	return fmt.Sprintf("hostIP %s, egressIPs %q, egressCIDRs %q", h.HostIP, h.EgressIPs, h.EgressCIDRs)
}

// fill copies what the Node reports into its HostSubnet. What it does not report
// stays.
func fill(h *v1.HostSubnet, node *corev1.Node, choice egress.HostIPChoice) {
	h.Host = node.Name
	if choice.IP.IsValid() {
		h.HostIP = choice.IP.String()
	}
	if subnet := podCIDR(node); subnet.IsValid() {
		h.Subnet = subnet.String()
	}
	metav1.SetMetaDataAnnotation(&h.ObjectMeta, v1.AnnotationNodeUID, string(node.UID))
}

// chooseHostIP chooses the host's address among those that its Node lists.
func (r *hostSubnets) chooseHostIP(ctx context.Context, h *v1.HostSubnet, node *corev1.Node) (egress.HostIPChoice, error) {
	listed := egress.HostIPs(internalIPs(node))
	present, _ := netip.ParseAddr(h.HostIP)
	if len(listed) == 0 || listed[0] == present {
		return egress.ChooseHostIP(listed, present, nil), nil
	}
	own, _ := egress.Snapshot(egress.Objects{HostSubnets: []v1.HostSubnet{*h}})
	if choice, stays := own.Hosts[0].StillIPv4(listed); stays {
		return choice, nil
	}
	owners, err := r.addressOwners(ctx, node.Name)
	if err != nil {
		return egress.HostIPChoice{}, err
	}
	return egress.ChooseHostIP(listed, present, func(ip netip.Addr) string { return owners[ip] }), nil
}

// addressOwners returns whose addresses are, apart from the node's own: those of hosts
// whose Nodes list them, and egress IPs.
func (r *hostSubnets) addressOwners(ctx context.Context, except string) (map[netip.Addr]string, error) {
	var hosts v1.HostSubnetList
	var namespaces v1.NetNamespaceList
	var nodeList corev1.NodeList
	if err := errors.Join(r.cache.List(ctx, &hosts), r.cache.List(ctx, &namespaces), r.cache.List(ctx, &nodeList)); err != nil {
		return nil, fmt.Errorf("read the caches: %w", err)
	}
	nodes := byName(nodeList.Items)
	established := make(map[string]bool)
	for i := range hosts.Items {
		h := &hosts.Items[i]
		ip, err := netip.ParseAddr(h.HostIP)
		node := nodes[h.Name]
		if err == nil && h.Name != except && node != nil && slices.Contains(internalIPs(node), ip) {
			established[h.Name] = true
		}
	}
	egressIPs, err := r.egressIPs.list(ctx)
	if err != nil {
		return nil, err
	}
	cluster, _ := egress.Snapshot(egress.Objects{NetNamespaces: namespaces.Items, EgressIPs: egressIPs, HostSubnets: hosts.Items})
	return egress.AddressOwners(cluster, established), nil
}

// refusal is the warning about an address that a Node lists and that is not its.
func refusal(node *corev1.Node, choice egress.HostIPChoice) string {
	used := "It has no other address, so there is no HostSubnet for it."
	if choice.IP.IsValid() {
		used = fmt.Sprintf("The hostIP is %s.", choice.IP)
	}
	return fmt.Sprintf("Node %s lists %s as its first InternalIP, but that is %s. %s Check the addresses of the machine, and --node-ip of its kubelet.",
		node.Name, choice.Refused, choice.Why, used)
}

// internalIPs are the InternalIPs, in the Node's order. The kubelet considers the first its
// own.
func internalIPs(node *corev1.Node) []netip.Addr {
	var all []netip.Addr
	for _, address := range node.Status.Addresses {
		if ip, err := netip.ParseAddr(address.Address); err == nil && address.Type == corev1.NodeInternalIP && !ip.Is4In6() && ip.Zone() == "" {
			all = append(all, ip)
		}
	}
	return all
}

// hostIPs are the host's own address and the first IPv6 address that its Node lists, which
// may be nil.
func hostIPs(h *v1.HostSubnet, node *corev1.Node) []string {
	ips := []string{}
	if h.HostIP != "" {
		ips = append(ips, h.HostIP)
	}
	if own, err := netip.ParseAddr(h.HostIP); node == nil || err == nil && own.Is6() {
		return ips
	}
	if six := egress.HostIPs(slices.DeleteFunc(internalIPs(node), netip.Addr.Is4)); len(six) > 0 {
		ips = append(ips, six[0].String())
	}
	return ips
}

// maxIPv6Networks is the greatest number of entries that the schema takes.
const maxIPv6Networks = 64

// ipv6Networks are the IPv6 networks of the Node's pods, and its IPv6 addresses.
func ipv6Networks(node *corev1.Node) []string {
	var networks []netip.Prefix
	for _, cidr := range node.Spec.PodCIDRs {
		if prefix, err := netip.ParsePrefix(cidr); err == nil {
			networks = append(networks, prefix.Masked())
		}
	}
	for _, address := range node.Status.Addresses {
		if ip, err := netip.ParseAddr(address.Address); err == nil && ip.Zone() == "" {
			networks = append(networks, netip.PrefixFrom(ip, ip.BitLen()))
		}
	}
	var written []string
	for _, p := range networks {
		if text := p.String(); p.Addr().Is6() && !p.Addr().Is4In6() && !slices.Contains(written, text) {
			written = append(written, text)
		}
	}
	return written[:min(len(written), maxIPv6Networks)]
}

// podCIDR is the Node's first IPv4 pod network.
func podCIDR(node *corev1.Node) netip.Prefix {
	cidrs := node.Spec.PodCIDRs
	if len(cidrs) == 0 {
		cidrs = []string{node.Spec.PodCIDR}
	}
	for _, cidr := range cidrs {
		if prefix, err := netip.ParsePrefix(cidr); err == nil && prefix.Addr().Is4() {
			return prefix.Masked()
		}
	}
	return netip.Prefix{}
}
