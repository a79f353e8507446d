package controllers

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/internal/page"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// page adds the page, which every replica serves: the caches of one that stands by are warm.
func (s setup) page(log logr.Logger) (*page.Page, error) {
	identity, err := leaderIdentity(s.options)
	if err != nil {
		return nil, err
	}
	node := identity[:strings.LastIndexByte(identity, '_')]
	p, err := page.New(page.Config{
		Log: log.WithName("page"), Clock: clock.RealClock{},
		Source: pageSource{cache: s.mgr.GetCache(), egressIPs: s.egressIPs, options: s.options},
		Serving: func() string {
			if s.led() {
				return "served by the controller on " + node + ", which leads"
			}
			return "served by the controller on " + node + ", which stands by"
		},
	})
	if err != nil {
		return nil, err
	}
	if s.egressIPs != nil {
		s.egressIPs.seen = p.Changed
	}
	return p, s.mgr.Add(pageRunner{Page: p, cache: s.mgr.GetCache()})
}

// pageRunner runs the page, and tells it of changes in the caches. Those of EgressIPs come from their source.
type pageRunner struct {
	*page.Page
	cache cache.Cache
}

// Start works until ctx ends.
func (r pageRunner) Start(ctx context.Context) error {
	changed := toolscache.ResourceEventHandlerFuncs{
		AddFunc: func(any) { r.Changed() }, UpdateFunc: func(_, _ any) { r.Changed() }, DeleteFunc: func(any) { r.Changed() },
	}
	for _, object := range []client.Object{&v1.NetNamespace{}, &v1.HostSubnet{}, &corev1.Namespace{}} {
		informer, err := r.cache.GetInformer(ctx, object, cache.BlockUntilSynced(false))
		if err != nil {
			return fmt.Errorf("watch %T for the page: %w", object, err)
		}
		if _, err := informer.AddEventHandler(changed); err != nil {
			return fmt.Errorf("watch %T for the page: %w", object, err)
		}
	}
	return r.Page.Start(ctx)
}

// pageSource reads the objects of the page from the caches. It decides by what is published, as agents
// and the kubectl plugin do, so that all replicas show the same.
type pageSource struct {
	cache     client.Reader
	egressIPs *egressIPs
	options   Options
}

// Read implements page.Source.
func (s pageSource) Read(ctx context.Context) (page.Input, error) {
	var (
		netNamespaces v1.NetNamespaceList
		hostSubnets   v1.HostSubnetList
		namespaces    corev1.NamespaceList
	)
	if err := errors.Join(s.cache.List(ctx, &netNamespaces), s.cache.List(ctx, &hostSubnets), s.cache.List(ctx, &namespaces)); err != nil {
		return page.Input{}, fmt.Errorf("read the caches: %w", err)
	}
	egressIPs, err := s.egressIPs.list(ctx)
	if err != nil {
		return page.Input{}, err
	}
	in := page.Input{
		Objects: egress.Objects{
			NetNamespaces: netNamespaces.Items, EgressIPs: egressIPs, HostSubnets: hostSubnets.Items, Included: s.options.Included,
		},
		NamespaceLabels: make(map[string]map[string]string, len(namespaces.Items)),
	}
	for i := range namespaces.Items {
		in.NamespaceLabels[namespaces.Items[i].Name] = namespaces.Items[i].Labels
	}
	return in, nil
}
