package controllers

import (
	"context"
	"fmt"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
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

// hostSubnets keeps a HostSubnet for each Node, and claims in canonical form.
type hostSubnets struct{ deps }

func setupHostSubnets(mgr manager.Manager, d deps) error {
	return builder.ControllerManagedBy(mgr).Named("hostsubnets").
		WithOptions(controllerOptions()).
		Watches(&corev1.Node{}, &handler.EnqueueRequestForObject{}, builder.WithPredicates(unless(sameNode))).
		Watches(&v1.HostSubnet{}, &handler.EnqueueRequestForObject{}, builder.WithPredicates(unless(sameFields))).
		Complete(&hostSubnets{deps: d})
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
		return reconcile.Result{}, r.create(ctx, node)
	} else if err != nil {
		return reconcile.Result{}, fmt.Errorf("read HostSubnet %s from the cache: %w", request.Name, err)
	}
	if !h.DeletionTimestamp.IsZero() {
		return reconcile.Result{}, nil // its deletion is seen, and then it is created again
	}
	if mark, marked := h.Annotations[v1.AnnotationNodeUID]; marked && (node == nil || mark != string(node.UID)) {
		gone, err := r.deleteOrphan(ctx, h)
		if err != nil || gone {
			return result(0, err)
		}
	}
	return result(0, r.update(ctx, node, h))
}

// create creates the HostSubnet of a Node that has an IPv4 address. A Node without
// one is reconciled again when it gets one.
func (r *hostSubnets) create(ctx context.Context, node *corev1.Node) error {
	if node == nil || !node.DeletionTimestamp.IsZero() {
		return nil
	}
	h := &v1.HostSubnet{ObjectMeta: metav1.ObjectMeta{Name: node.Name}}
	fill(h, node)
	if h.HostIP == "" {
		log.FromContext(ctx).Info("no HostSubnet is created: the Node has no IPv4 InternalIP", "node", node.Name)
		return nil
	}
	if err := r.writer.Create(ctx, h); err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("create HostSubnet %s: %w", node.Name, err)
	}
	return nil
}

// update copies what the Node reports, if it exists, and puts claims into canonical
// form, except on an automatic host: there the allocation owns the list.
func (r *hostSubnets) update(ctx context.Context, node *corev1.Node, h *v1.HostSubnet) error {
	wanted := h.DeepCopy()
	if node != nil {
		fill(wanted, node)
	}
	if len(h.EgressCIDRs) == 0 {
		if canonical, changed := egress.CanonicalClaims(h.EgressIPs); changed {
			wanted.EgressIPs = canonical
		}
	}
	if equality.Semantic.DeepEqual(wanted, h) {
		return nil
	}
	if err := r.writer.Patch(ctx, wanted, client.MergeFromWithOptions(h, client.MergeFromWithOptimisticLock{})); err != nil {
		return unlessGone(fmt.Errorf("update HostSubnet %s: %w", h.Name, err))
	}
	return nil
}

// deleteOrphan deletes a HostSubnet whose Node is gone, or is not the one that this
// controller created it for. An annotation with another UID that came with YAML from
// elsewhere does not count while a Node of that name exists: it is corrected.
func (r *hostSubnets) deleteOrphan(ctx context.Context, h *v1.HostSubnet) (deleted bool, err error) {
	// Deletion cannot be undone, so it depends on the API itself.
	var live v1.HostSubnet
	if err := r.live.Get(ctx, client.ObjectKeyFromObject(h), &live); err != nil {
		return apierrors.IsNotFound(err), unlessGone(fmt.Errorf("read HostSubnet %s: %w", h.Name, err))
	}
	var node corev1.Node
	err = r.live.Get(ctx, client.ObjectKeyFromObject(h), &node)
	if client.IgnoreNotFound(err) != nil {
		return false, fmt.Errorf("read Node %s: %w", h.Name, err)
	}
	if err == nil {
		if live.Annotations[v1.AnnotationNodeUID] == string(node.UID) {
			return true, nil // the cache lags, nothing to do
		}
		ours, err := ourAnnotation(&live, v1.AnnotationNodeUID)
		if err != nil || !ours {
			return false, err
		}
	}
	if err := r.writer.Delete(ctx, &live, identity(live.UID, live.ResourceVersion)); err != nil {
		return true, unlessGone(fmt.Errorf("delete HostSubnet %s: %w", h.Name, err))
	}
	log.FromContext(ctx).Info("deleted the HostSubnet of a Node that is gone", "hostSubnet", h.Name,
		"egressIPs", h.EgressIPs, "egressCIDRs", h.EgressCIDRs)
	return true, nil
}

// fill copies what the Node reports into its HostSubnet. What it does not report
// stays.
func fill(h *v1.HostSubnet, node *corev1.Node) {
	h.Host = node.Name
	if ip := internalIPv4(node); ip.IsValid() {
		h.HostIP = ip.String()
	}
	if subnet := podCIDR(node); subnet.IsValid() {
		h.Subnet = subnet.String()
	}
	metav1.SetMetaDataAnnotation(&h.ObjectMeta, v1.AnnotationNodeUID, string(node.UID))
}

// internalIPv4 is the first InternalIP that is IPv4, which the kubelet considers the
// node's own.
func internalIPv4(node *corev1.Node) netip.Addr {
	for _, address := range node.Status.Addresses {
		if ip, err := netip.ParseAddr(address.Address); err == nil && address.Type == corev1.NodeInternalIP && ip.Is4() {
			return ip
		}
	}
	return netip.Addr{}
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
