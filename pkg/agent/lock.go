package agent

import (
	"context"
	"errors"
	"slices"

	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// Lock holds this node's pods back, from their first packet, until the agent
// knows them: nothing with an address of a pod network leaves the cluster. It is
// for the time between the start of the machine and that of the agent, and does
// nothing on a node that an agent has served since the machine started.
func Lock(ctx context.Context, o LockOptions) (err error) {
	if err := o.Validate(); err != nil {
		return err
	}
	config := o.Kernel.config()
	config.ProbePort = o.ProbePort
	dp, err := dataplane.New(config)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dp.Close()) }()
	report, err := dp.Lock(ctx, dataplane.State{
		HostIP: o.HostIP, Inside: append(slices.Concat(o.Pods, o.Services), egress.LinkLocal()), Subnets: o.Pods, Strict: true,
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
		log.Info("warning", "warning", w.String())
	}
	log.Info("pods are held back until the agent knows them", "backends", report.Backends, "podNetworks", o.Pods)
	return nil
}
