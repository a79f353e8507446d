package controllers

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
)

// noPods answers that there are no Pods, and counts how often.
type noPods struct {
	client.Reader // what is not used
	lists         int
}

func (n *noPods) List(context.Context, client.ObjectList, ...client.ListOption) error {
	n.lists++
	return nil
}

// TestLookUpOfPodsCalmsDown: an agent publishes a network in which there never is a Pod.
// The controller looks soon, and then less and less often; and soon again when the agent
// publishes another network as well.
//
// Kills the mutants pods-are-looked-up-for-ever and other-networks-wait.
func TestLookUpOfPodsCalmsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := &noPods{}
		p := newPodLookup(logr.Discard(), clock.RealClock{}, api)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- p.Start(ctx) }()
		h := &v1.HostSubnet{ObjectMeta: metav1.ObjectMeta{Name: "node1"}, Status: v1.HostSubnetStatus{Agent: &v1.AgentStatus{}}}
		within := func(d time.Duration, atLeast, atMost int) {
			t.Helper()
			before := api.lists
			for end := time.Now().Add(d); time.Now().Before(end); {
				p.listed(h, nil) // as each pass does; time is that of the bubble
				time.Sleep(time.Second)
				synctest.Wait()
			}
			if n := api.lists - before; n < atLeast || n > atMost {
				t.Errorf("%d look-ups within %s, want %d to %d", n, d, atLeast, atMost)
			}
		}
		within(time.Hour, 0, 0)
		h.Status.Agent.PodNetworks = []string{"10.9.1.0/24"}
		within(10*time.Second, 2, 4)
		within(time.Hour, 55, 65)
		h.Status.Agent.PodNetworks = []string{"10.9.1.0/24", "10.9.2.0/24"}
		within(10*time.Second, 2, 4)
		h.Status.Agent.PodNetworks = nil
		within(time.Hour, 0, 1)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
