package controllers_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/internal/testenv/objects"
)

// agents reports in place of all hosts' agents until the test ends.
func (a *api) agents(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var group sync.WaitGroup
	group.Go(func() {
		if err := a.playAgents(ctx); err != nil {
			t.Errorf("play the agents: %v", err)
		}
	})
	t.Cleanup(func() {
		cancel()
		group.Wait()
	})
}

// playAgents reports in place of the agents of all hosts that all is well, until ctx
// ends. It leaves hosts alone for which the test itself has reported anything. As agents
// do, it watches the hosts: polling a hundred full ones keeps a processor busy.
func (a *api) playAgents(ctx context.Context) error {
	watched, err := cache.New(a.env.Config, cache.Options{Scheme: a.Scheme(), DefaultUnsafeDisableDeepCopy: new(true)})
	if err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- watched.Start(ctx) }()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	done := make(map[types.UID]string) // what has nothing to be written, by its version
	for {
		var hosts v1.HostSubnetList
		_ = watched.List(ctx, &hosts) // it is tried again
		for i := range hosts.Items {
			h := &hosts.Items[i]
			if done[h.UID] == h.ResourceVersion {
				continue
			}
			own := h.Status.Agent == nil || h.Status.Agent.Version == objects.AgentVersion
			if !own || a.reportAsAgent(ctx, h.DeepCopy()) == nil {
				done[h.UID] = h.ResourceVersion
			}
		}
		select {
		case err := <-ended: // with ctx, or because it could not start
			return err
		case <-ticker.C:
		}
	}
}

// reportAsAgent writes as the host's agent does that all is well, unless that is
// reported already.
func (a *api) reportAsAgent(ctx context.Context, h *v1.HostSubnet) error {
	if !objects.AgentReports(h) {
		return nil
	}
	part := v1.HostSubnetStatus{Agent: h.Status.Agent, EgressIPs: h.Status.EgressIPs}
	if ready := meta.FindStatusCondition(h.Status.Conditions, v1.ConditionAgentReady); ready != nil {
		part.Conditions = []metav1.Condition{*ready}
	}
	status, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&part)
	if err != nil {
		return err
	}
	delete(status, "witnesses")
	u := &unstructured.Unstructured{Object: map[string]any{"status": status}}
	u.SetGroupVersionKind(v1.GroupVersion().WithKind("HostSubnet"))
	u.SetName(h.Name)
	u.SetResourceVersion(h.ResourceVersion)
	return a.Status().Apply(ctx, client.ApplyConfigurationFromUnstructured(u), client.FieldOwner("egressip-agent"), client.ForceOwnership)
}
