// Package installcheck looks at whether an install of the operator works. It changes nothing.
package installcheck

import (
	"context"
	"errors"
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
)

// The names of what is installed.
const (
	controllerName = "egressip-controller"
	agentName      = "egressip-agent"
)

// lookEvery is the pause between two looks.
const lookEvery = time.Second

// Wait returns when the install in a namespace works. If it does not by the end of ctx, the error
// has everything that is missing, one a line. progress is called when something else is missing
// than before.
func Wait(ctx context.Context, cfg *rest.Config, namespace string, progress func(missing error)) error {
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), v1.AddToScheme(scheme)); err != nil {
		return fmt.Errorf("register the API's kinds: %w", err)
	}
	c, err := client.New(cfg, client.Options{Scheme: scheme})
	if err != nil {
		return fmt.Errorf("set up the client: %w", err)
	}
	return wait(ctx, c, clock.RealClock{}, namespace, progress)
}

func wait(ctx context.Context, c client.Reader, now clock.Clock, namespace string, progress func(missing error)) error {
	var last error
	for {
		missing := missingIn(ctx, c, now.Now(), namespace)
		if missing == nil {
			return nil
		}
		if ctx.Err() == nil {
			if last == nil || last.Error() != missing.Error() {
				progress(missing)
			}
			last = missing
		}
		timer := now.NewTimer(lookEvery)
		select {
		case <-ctx.Done():
			timer.Stop()
			return errors.Join(last, ctx.Err())
		case <-timer.C():
		}
	}
}

// missingIn returns what is missing.
func missingIn(ctx context.Context, c client.Reader, now time.Time, namespace string) error {
	return errors.Join(
		missingController(ctx, c, now, namespace),
		missingAgents(ctx, c, namespace),
		missingHosts(ctx, c),
	)
}

// missingController says whether a controller leads.
func missingController(ctx context.Context, c client.Reader, now time.Time, namespace string) error {
	var lease coordinationv1.Lease
	if err := c.Get(ctx, client.ObjectKey{Namespace: namespace, Name: controllerName}, &lease); err != nil {
		return fmt.Errorf("no controller leads: read Lease %s/%s: %w", namespace, controllerName, err)
	}
	s := lease.Spec
	if s.HolderIdentity == nil || *s.HolderIdentity == "" || s.RenewTime == nil || s.LeaseDurationSeconds == nil {
		return fmt.Errorf("no controller leads: nobody holds Lease %s/%s; see the pods of Deployment %s", namespace, controllerName, controllerName)
	}
	if age := now.Sub(s.RenewTime.Time); age > time.Duration(*s.LeaseDurationSeconds)*time.Second {
		return fmt.Errorf("no controller leads: %s has not renewed Lease %s/%s for %s; see the pods of Deployment %s",
			*s.HolderIdentity, namespace, controllerName, age.Round(time.Second), controllerName)
	}
	return nil
}

// missingAgents says whether an agent of the installed version runs on each node that must have one.
func missingAgents(ctx context.Context, c client.Reader, namespace string) error {
	var set appsv1.DaemonSet
	if err := c.Get(ctx, client.ObjectKey{Namespace: namespace, Name: agentName}, &set); err != nil {
		return fmt.Errorf("no agents: read DaemonSet %s/%s: %w", namespace, agentName, err)
	}
	s := set.Status
	switch {
	case s.ObservedGeneration < set.Generation:
		return fmt.Errorf("agents: DaemonSet %s/%s has not been looked at since it was changed", namespace, agentName)
	case s.DesiredNumberScheduled == 0:
		return fmt.Errorf("no agents: DaemonSet %s/%s fits no node; see its nodeSelector and tolerations", namespace, agentName)
	case s.NumberReady < s.DesiredNumberScheduled:
		return fmt.Errorf("agents: %d of %d are ready; see the pods of DaemonSet %s/%s", s.NumberReady, s.DesiredNumberScheduled, namespace, agentName)
	}
	return nil
}

// missingHosts names the hosts whose agents report that their kernel is not as planned, and says if
// there are none.
func missingHosts(ctx context.Context, c client.Reader) error {
	var hosts v1.HostSubnetList
	if err := c.List(ctx, &hosts); err != nil {
		return fmt.Errorf("read the HostSubnets: %w", err)
	}
	if len(hosts.Items) == 0 {
		return errors.New("there are no HostSubnets: the controller has made none, or no Node has an InternalIP")
	}
	var errs []error
	for i := range hosts.Items {
		h := &hosts.Items[i]
		c := meta.FindStatusCondition(h.Status.Conditions, v1.ConditionAgentReady)
		if c != nil && c.Status == metav1.ConditionFalse {
			errs = append(errs, fmt.Errorf("HostSubnet %s: its agent is not ready: %s: %s", h.Name, c.Reason, c.Message))
		}
	}
	return errors.Join(errs...)
}
