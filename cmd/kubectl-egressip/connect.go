package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/egressip-operator/egressip-operator/api/egressip/v1alpha1"
	ovnv1 "github.com/egressip-operator/egressip-operator/api/ovn/v1"
	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// connect gets the objects that the decisions depend on from the API server, and returns the client that
// it read with.
func connect(ctx context.Context, config clientcmd.ClientConfig) (egress.Objects, client.Client, error) {
	c, err := newClient(config)
	if err != nil {
		return egress.Objects{}, nil, err
	}
	o, err := readObjects(ctx, c)
	return o, c, err
}

// readObjects gets the objects that the decisions depend on.
func readObjects(ctx context.Context, c client.Reader) (egress.Objects, error) {
	var netNamespaces v1.NetNamespaceList
	var hostSubnets v1.HostSubnetList
	if err := c.List(ctx, &netNamespaces); err != nil {
		return egress.Objects{}, fmt.Errorf("list NetNamespaces: %w", err)
	}
	if err := c.List(ctx, &hostSubnets); err != nil {
		return egress.Objects{}, fmt.Errorf("list HostSubnets: %w", err)
	}
	egressIPs, err := servedEgressIPs(ctx, c)
	return egress.Objects{NetNamespaces: netNamespaces.Items, EgressIPs: egressIPs, HostSubnets: hostSubnets.Items}, err
}

// newClient returns a client of the cluster that the flags choose.
func newClient(config clientcmd.ClientConfig) (client.Client, error) {
	cfg, err := config.ClientConfig()
	if err != nil {
		return nil, err
	}
	cfg.QPS, cfg.Burst = 50, 300 // as kubectl
	scheme := runtime.NewScheme()
	if err := errors.Join(corev1.AddToScheme(scheme), networkingv1.AddToScheme(scheme), appsv1.AddToScheme(scheme), discoveryv1.AddToScheme(scheme), coordinationv1.AddToScheme(scheme),
		v1.AddToScheme(scheme), ovnv1.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		return nil, err
	}
	return client.New(cfg, client.Options{Scheme: scheme})
}

// servesEgressIPs reports whether the operator serves EgressIPs, and not another software; hidden if the
// user may not read the definition, which says so.
func servesEgressIPs(ctx context.Context, c client.Reader) (served, hidden bool, err error) {
	crd := &metav1.PartialObjectMetadata{}
	crd.SetGroupVersionKind(schema.GroupVersionKind{Group: "apiextensions.k8s.io", Version: "v1", Kind: "CustomResourceDefinition"})
	err = c.Get(ctx, client.ObjectKey{Name: ovnv1.CRDName}, crd)
	switch {
	case apierrors.IsForbidden(err):
		return false, true, nil
	case apierrors.IsNotFound(err):
		return false, false, nil
	case err != nil:
		return false, false, fmt.Errorf("read CustomResourceDefinition %s: %w", ovnv1.CRDName, err)
	}
	return crd.Annotations[ovnv1.AnnotationServedBy] == ovnv1.ServedBy, false, nil
}

// servedEgressIPs are the EgressIPs, if the operator serves them. Who may not read the definition
// sees it by the netid: no one else gives them one.
func servedEgressIPs(ctx context.Context, c client.Reader) ([]ovnv1.EgressIP, error) {
	served, hidden, err := servesEgressIPs(ctx, c)
	if err != nil || !served && !hidden {
		return nil, err
	}
	var list ovnv1.EgressIPList
	if err := c.List(ctx, &list); err != nil && !isNoSuchKind(err) {
		return nil, fmt.Errorf("list EgressIPs: %w", err)
	}
	return slices.DeleteFunc(list.Items, func(e ovnv1.EgressIP) bool {
		_, numbered := e.ID()
		return hidden && !numbered
	}), nil
}

// isNoSuchKind reports whether the API server does not serve the kind that was asked for.
func isNoSuchKind(err error) bool { return meta.IsNoMatchError(err) || apierrors.IsNotFound(err) }
