package agent

import (
	"context"
	"errors"
	"net/netip"
	"slices"

	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane"
)

// LockOptions say what a node knows of its cluster before it hears of the API
// server.
type LockOptions struct {
	// HostIP is the node's address, that of its default route if invalid.
	HostIP netip.Addr
	// Pods are the networks of the cluster's pods, Services those of its
	// services.
	Pods, Services []netip.Prefix
	// ProbePort is the agents' probe port, 0 for none.
	ProbePort uint16
	Kernel    KernelOptions
}

// Lock holds this node's pods back, from their first packet, until the agent
// knows them: nothing with an address of a pod network leaves the cluster. It is
// for the time between the start of the machine and that of the agent, and does
// nothing on a node that an agent has served since the machine started.
func Lock(ctx context.Context, o LockOptions) (err error) {
	if len(o.Pods) == 0 {
		return errors.New("no pod networks are given: name those of all pods of the cluster")
	}
	config, err := o.Kernel.config()
	if err != nil {
		return err
	}
	config.ProbePort = o.ProbePort
	dp, err := dataplane.New(config)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dp.Close()) }()
	report, err := dp.Lock(ctx, dataplane.State{
		HostIP: o.HostIP, Inside: slices.Concat(o.Pods, o.Services), Subnets: o.Pods, Strict: true,
	})
	log := ctrl.LoggerFrom(ctx)
	if errors.Is(err, dataplane.ErrServed) {
		log.Info("nothing to do: an agent has served this node since it booted")
		return nil
	}
	if err != nil {
		return err
	}
	for _, w := range report.Warnings {
		log.Info("warning", "warning", w)
	}
	log.Info("pods are held back until the agent knows them", "backends", report.Backends, "podNetworks", o.Pods)
	return nil
}
