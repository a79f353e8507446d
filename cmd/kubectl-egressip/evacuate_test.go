package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/controllers"
	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/internal/testenv/objects"
)

// works runs the controller, and plays the agents of all hosts but for those in silent, until the
// test ends.
func (s *server) works(t *testing.T, silent map[string]bool) {
	t.Helper()
	ctx, cancel := context.WithCancel(ctrl.LoggerInto(context.WithoutCancel(t.Context()), logr.Discard()))
	var ended sync.WaitGroup
	ended.Go(func() {
		if err := controllers.Run(ctx, s.env.Config, controllers.Options{}); err != nil {
			t.Errorf("controller: %v", err)
		}
	})
	ended.Go(func() {
		for ctx.Err() == nil {
			if err := s.report(ctx, silent); err != nil && ctx.Err() == nil && !apierrors.IsConflict(err) {
				t.Errorf("play the agents: %v", err)
			}
			select {
			case <-ctx.Done():
			case <-time.After(50 * time.Millisecond):
			}
		}
	})
	t.Cleanup(func() {
		cancel()
		ended.Wait()
	})
}

// report writes what agents report if all is well.
func (s *server) report(ctx context.Context, silent map[string]bool) error {
	var list v1.HostSubnetList
	if err := s.List(ctx, &list); err != nil {
		return err
	}
	var errs []error
	for i := range list.Items {
		h := &list.Items[i]
		if silent[h.Name] || h.HostIP == "" {
			continue
		}
		if before := h.DeepCopy(); objects.AgentReports(h) {
			errs = append(errs, s.Status().Patch(ctx, h, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})))
		}
	}
	return errors.Join(errs...)
}

// TestEvacuate: egress IPs are moved away from a host by the controller itself, on a real API server;
// what cannot leave is reported, and nothing is changed by a preview.
//
// Mutants killed: evacuate-does-not-wait, evacuate-forgets-what-stays, restore-evacuates.
func TestEvacuate(t *testing.T) {
	t.Parallel()
	s := startServer(t, "crd")
	for i, name := range []string{"node1", "node2", "node3"} {
		s.create(t, objects.Node(name, corev1.ConditionTrue, fmt.Sprintf("10.1.8.1%d", i+1)))
	}
	s.namespaces(t, "shop", "test", "more")
	s.works(t, nil)
	change := func(object client.Object, patch string) {
		t.Helper()
		testenv.Eventually(t, func(ctx context.Context) string {
			if err := s.Patch(ctx, object, mergePatch(patch)); err != nil {
				return err.Error()
			}
			return ""
		})
	}
	host := func(name string) *v1.HostSubnet {
		h := &v1.HostSubnet{}
		h.Name = name
		return h
	}
	request := func(name, ips string) {
		n := &v1.NetNamespace{}
		n.Name = name
		change(n, `{"egressIPs": [`+ips+`]}`)
	}
	change(host("node1"), `{"egressCIDRs": ["10.1.8.240/28"]}`)
	change(host("node3"), `{"egressIPs": ["10.1.8.200"]}`)
	request("shop", `"10.1.8.241"`)
	request("test", `"10.1.8.242"`)
	request("more", `"10.1.8.200"`)
	inOrder := func() {
		t.Helper()
		testenv.Eventually(t, func(ctx context.Context) string {
			for _, name := range []string{"shop", "test", "more"} {
				var n v1.NetNamespace
				if err := s.Get(ctx, clientKey(name), &n); err != nil || n.Status.Active == nil {
					return fmt.Sprintf("%s: %v, %+v", name, err, n.Status)
				}
			}
			return ""
		})
	}
	inOrder()
	change(host("node2"), `{"egressCIDRs": ["10.1.8.240/28"]}`)

	out, code := s.exits(t, "", "evacuate", "node1", "--dry-run")
	check(t, squeeze(out), []string{"10.1.8.241 shop node1 Active node2 Active", "10.1.8.242 test node1 Active node2 Active", "dropped: 0\n"}, nil)
	if asked := s.annotation(t, "node1"); asked != "" || code != 0 {
		t.Errorf("exit code %d, and the Node is annotated: %q", code, asked)
	}
	out, code = s.exits(t, "", "evacuate", "node1")
	check(t, out, []string{"node1: 0 egress IPs, 0 in use\n", "No traffic leaves through node1; egress IPs that it still has, which nothing uses: 0.\n"}, nil)
	var moved v1.HostSubnet
	if err := s.Get(t.Context(), clientKey("node2"), &moved); err != nil || code != 0 || len(moved.EgressIPs) != 2 || len(moved.Status.EgressIPs) != 2 {
		t.Errorf("exit code %d, %v: node2 has %v, and reports %v", code, err, moved.EgressIPs, moved.Status.EgressIPs)
	}
	inOrder()

	// Of a manual host nothing is moved.
	out, code = s.exits(t, "", "evacuate", "node3")
	check(t, squeeze(out), []string{"These stay in use:\n", "10.1.8.200 more an administrator listed it for this host"}, nil)
	if code != exitStays {
		t.Errorf("exit code %d of an egress IP that stays", code)
	}
	out, code = s.exits(t, "", "restore", "node1")
	check(t, out, []string{"node1 may have egress IPs again; it has "}, nil)
	if asked := s.annotation(t, "node1"); asked != "" || code != 0 {
		t.Errorf("exit code %d, and the Node is annotated: %q", code, asked)
	}
	out, code = s.exits(t, "", "evacuate", "node1", "--timeout=0")
	if asked := s.annotation(t, "node1"); asked != "true" || code != 0 {
		t.Errorf("exit code %d, and the Node is annotated: %q\n%s", code, asked, out)
	}
	if out, code = s.exits(t, "", "evacuate", "node9"); code != 1 {
		t.Errorf("exit code %d of a host that does not exist: %s", code, out)
	}
}

func (s *server) annotation(t *testing.T, node string) string {
	t.Helper()
	var n corev1.Node
	if err := s.Get(t.Context(), clientKey(node), &n); err != nil {
		t.Fatal(err)
	}
	return n.Annotations[v1.AnnotationEvacuate]
}

// TestEvacuateIsLate: without a controller nothing happens, and the error says what to look at.
func TestEvacuateIsLate(t *testing.T) {
	t.Parallel()
	s := startServer(t, "crd")
	s.cluster(t)
	out, code := s.exits(t, "", "evacuate", "node1", "--timeout=1ms")
	check(t, out, []string{"node1 is not done after 1ms: the controller has not seen the annotation: check that it runs"}, nil)
	if code != 1 {
		t.Errorf("exit code %d", code)
	}
	e := evacuation{away: true, host: "node1", every: time.Millisecond, timeout: time.Minute, c: s.Client, out: io.Discard, errOut: io.Discard}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	o := given()
	if err := e.run(ctx, o); err == nil {
		t.Error("an interruption is no error")
	}
}
