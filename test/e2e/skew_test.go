package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/test/testbed"
)

// Images of the two versions.
const (
	newImage    = "egressip-operator:dev"
	formerImage = "egressip-operator:former"
)

// skew is a bed with two versions of the operator, and what sends all the time.
type skew struct {
	*bed
	former  string // the folder that "make skew" has built the former version in
	probers *probers
	owner   func()
}

// TestSkew plays the main job with controllers of one version and agents of another, both ways,
// while pods with an egress IP, pods without one and a node itself send: none of their packets has
// a wrong source, no connection ends, and no egress IP has two owners. Between the pairs the
// release is rolled back; and in the end it is uninstalled, which leaves nothing.
func TestSkew(t *testing.T) {
	former := os.Getenv(formerVariable)
	if former == "" {
		t.Skipf("%s names no former version: see \"make skew\"", formerVariable)
	}
	former, err := filepath.Abs(former)
	if err != nil {
		t.Fatal(err)
	}
	s := &skew{former: former, bed: newBedOf(t, testbed.Options{Prefix: "skew", Backend: testbed.NFT, Images: []string{filepath.Join(former, "image.tar")}})}
	s.before = s.snapshots(t)
	if err := s.InstallChart(t.Context(), filepath.Join(former, "tree", "charts", "egressip-operator"), "image.tag=former"); err != nil {
		t.Fatal(err)
	}
	s.eventually(t, func() error {
		_, err := s.Kubectl(t.Context(), append([]string{"get", "hostsubnets"}, s.Nodes()...)...)
		return err
	})
	s.probers = s.bed.probers(t)
	host := s.hostSends(t)
	s.givenEgressIP(t)
	streams := s.streams(t)
	s.owner = s.oneOwner(t)

	steps := []step{
		{"former controllers, new agents", s.newAgentsFirst},
		{"new controllers follow", s.newControllersFollow},
	}
	if !s.formerHasTables(t) {
		steps = append(steps, step{"as the former version has it, before the rollback", s.asFormer})
	}
	if inOrder(t, append(
		steps,
		step{"rollback", s.rollBack},
		step{"new controllers, former agents", s.newControllersFirst},
		step{"new agents follow, node by node", s.newAgentsFollow},
	)...) {
		s.owner()
		streams(t)
		host(t)
		s.probers.verify(t)
		t.Run("uninstalling leaves nothing", s.leavesNothing)
	}
}

// formerHasTables reports whether the former version knows rules in a table of our own.
func (s *skew) formerHasTables(t *testing.T) bool {
	t.Helper()
	help, err := exec.CommandContext(t.Context(), filepath.Join(s.former, "egressip-operator"), "agent", "--help").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, help)
	}
	return strings.Contains(string(help), "nftables")
}

// newAgentsFirst upgrades everything but the controllers, whose rollout is paused: so may an
// administrator, and so it is for a while in each upgrade.
func (s *skew) newAgentsFirst(t *testing.T) {
	t.Helper()
	s.rollout(t, "pause", "deployment/egressip-controller")
	s.install(t)
	s.run(t, formerImage, newImage)
}

func (s *skew) newControllersFollow(t *testing.T) {
	t.Helper()
	s.rollout(t, "resume", "deployment/egressip-controller")
	s.rollout(t, "status", "deployment/egressip-controller", "--timeout="+testenv.Stretch(2*time.Minute).String())
	s.run(t, newImage, newImage)
}

// asFormer does what CHANGELOG.md says of a downgrade to 0.1.0.
func (s *skew) asFormer(t *testing.T) {
	t.Helper()
	s.values = []string{"backend=iptables", "agent.extraArgs={--guard-filter}"}
	s.install(t)
	s.eventually(t, func() error { return s.backendIs(t, "iptables") })
	s.values = nil
}

// rollBack goes back to the release's first revision, as helm does it.
func (s *skew) rollBack(t *testing.T) {
	t.Helper()
	if _, err := s.Helm(t.Context(), "rollback", testbed.OperatorRelease, "1", "--namespace", testbed.OperatorNamespace,
		"--wait", "--timeout", testenv.Stretch(3*time.Minute).String()); err != nil {
		t.Fatal(err)
	}
	s.run(t, formerImage, formerImage)
}

// newControllersFirst upgrades everything but the agents, which are replaced when they are deleted.
func (s *skew) newControllersFirst(t *testing.T) {
	t.Helper()
	s.values = []string{"agent.updateStrategy=OnDelete"}
	s.install(t)
	s.run(t, newImage, formerImage)
}

func (s *skew) newAgentsFollow(t *testing.T) {
	t.Helper()
	for _, node := range s.Nodes() {
		if _, err := s.Kubectl(t.Context(), "-n", testbed.OperatorNamespace, "delete", "pods", "--selector=app.kubernetes.io/component=agent", "--field-selector=spec.nodeName="+node); err != nil {
			t.Fatal(err)
		}
		s.eventually(t, func() error { return s.ready(t, node) })
	}
	s.run(t, newImage, newImage)
}

// ready reports whether the new agent of a node is.
func (s *skew) ready(t *testing.T, node string) error {
	t.Helper()
	out, err := s.Kubectl(t.Context(), "-n", testbed.OperatorNamespace, "get", "pods", "--selector=app.kubernetes.io/component=agent", "--field-selector=spec.nodeName="+node,
		"-o", `jsonpath={range .items[*]}{.spec.containers[0].image} {.status.containerStatuses[0].ready}{"\n"}{end}`)
	if err == nil && strings.TrimSpace(out) != newImage+" true" {
		err = fmt.Errorf("agents of %s: %q", node, out)
	}
	return err
}

func (s *skew) rollout(t *testing.T, args ...string) {
	t.Helper()
	if _, err := s.Kubectl(t.Context(), append([]string{"-n", testbed.OperatorNamespace, "rollout"}, args...)...); err != nil {
		t.Fatal(err)
	}
}

// run waits until controllers and agents are those of the images, and plays the main job with them.
func (s *skew) run(t *testing.T, controllers, agents string) {
	t.Helper()
	s.within(t, 2*settle, func() error {
		return errors.Join(s.runs(t, "controller", controllers, 2), s.runs(t, "agent", agents, len(s.Nodes())))
	})
	s.play(t, agents == newImage || !s.formerIsRefused(t))
	t.Log(s.probers.gaps())
}

// runs reports whether a number of ready pods of a component, and no others, have the image.
func (s *skew) runs(t *testing.T, component, image string, number int) error {
	t.Helper()
	out, err := s.Kubectl(t.Context(), "-n", testbed.OperatorNamespace, "get", "pods", "--selector=app.kubernetes.io/component="+component,
		"-o", `jsonpath={range .items[*]}{.spec.containers[0].image} {.status.containerStatuses[0].ready}{"\n"}{end}`)
	if err != nil {
		return err
	}
	is := slices.Collect(strings.Lines(out))
	if len(is) != number || slices.ContainsFunc(is, func(line string) bool { return strings.TrimSpace(line) != image+" true" }) {
		return fmt.Errorf("want %d ready pods of the %s with %s, they are %q", number, component, image, is)
	}
	return nil
}

// formerIsRefused reports whether the API server refuses the status of a former agent, as that of
// 0.1.0 with a field that was removed since: such an agent serves, and does not report it.
func (s *skew) formerIsRefused(t *testing.T) bool {
	t.Helper()
	out, err := s.Kubectl(t.Context(), "get", "crd", "hostsubnets.network.openshift.io", "-o", "jsonpath={.spec.versions[0].schema.openAPIV3Schema.properties.status.properties.agent.properties}")
	if err != nil {
		t.Fatal(err)
	}
	former, err := os.ReadFile(filepath.Join(s.former, "tree", "config", "crd", "network.openshift.io_hostsubnets.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	const removed = "watches:\n"
	if refused := strings.Contains(string(former), " "+removed) && !strings.Contains(out, `"watches"`); refused {
		t.Log("agents of the former version report status.agent.watches, which is refused: what they report is not looked at")
		return true
	}
	return false
}

// play plays the main job in plainNamespace: it requests an egress IP that no host claims, a host
// gets egressCIDRs with it, and loses them; then the request is withdrawn. reports: the agents can
// report that they serve it.
func (s *skew) play(t *testing.T, reports bool) {
	t.Helper()
	asks := time.Now()
	s.request(t, plainNamespace, s.secondIP)
	s.awaitDropped(t, s.plain, s.bastionURL())
	s.patch(t, "hostsubnet", secondHost, s.automatic())
	s.eventually(t, func() error { return s.hasField(t, "hostsubnet", secondHost, "{.egressIPs[*]}", s.secondIP) })
	s.leaveWith(t, s.plain, func(testbed.Pod) string { return s.secondIP })
	s.leaveWith(t, s.egress, func(testbed.Pod) string { return s.egressIP })
	for _, object := range []string{"netnamespace/" + plainNamespace, "hostsubnet/" + secondHost} {
		if !reports {
			break
		}
		if _, err := s.Kubectl(t.Context(), "wait", "--for=condition=EgressReady", object, "--timeout="+testenv.Stretch(settle).String()); err != nil {
			t.Error(err)
		}
	}
	s.request(t, plainNamespace)
	s.eventually(t, func() error { return s.hasField(t, "hostsubnet", secondHost, "{.egressIPs[*]}", "") })
	s.patch(t, "hostsubnet", secondHost, `{"egressCIDRs": null}`)
	s.leaveWith(t, s.plain, s.nodeAddress)
	s.leaveWith(t, s.egress, func(testbed.Pod) string { return s.egressIP })
	t.Logf("the main job took %s", time.Since(asks).Round(time.Millisecond))
}

// leavesNothing uninstalls the release: the kernel of each node is as before the first install, and
// of the objects that came with the operator, only definitions are left.
func (s *skew) leavesNothing(t *testing.T) {
	s.request(t, egressNamespace)
	s.claim(t)
	s.leaveWith(t, s.egress, s.nodeAddress)
	ctx, cancel := context.WithTimeout(t.Context(), testenv.Stretch(3*time.Minute))
	defer cancel()
	if err := s.UninstallChart(ctx); err != nil {
		t.Fatal(err)
	}
	s.nodesAsBefore(t)
	s.leaveWith(t, slices.Concat(s.egress, s.plain), s.nodeAddress)
	kinds, err := s.Kubectl(t.Context(), "api-resources", "--verbs=list", "-o", "name")
	if err != nil {
		t.Fatal(err)
	}
	s.eventually(t, func() error {
		left, err := s.Kubectl(t.Context(), "get", strings.Join(strings.Fields(kinds), ","), "--all-namespaces", "--ignore-not-found",
			"--selector=app.kubernetes.io/name=egressip-operator", "-o", "name")
		if err == nil && left != "" {
			err = fmt.Errorf("left of the release:\n%s", left)
		}
		return err
	})
	// What the programs made themselves has no labels: the Lease by which controllers elect a leader.
	// It goes with the Namespace.
	kinds, err = s.Kubectl(t.Context(), "api-resources", "--verbs=list", "--namespaced", "-o", "name")
	if err != nil {
		t.Fatal(err)
	}
	s.eventually(t, func() error {
		left, err := s.Kubectl(t.Context(), "-n", testbed.OperatorNamespace, "get", strings.Join(strings.Fields(kinds), ","), "--ignore-not-found", "-o", "name")
		if err != nil {
			return err
		}
		var strange []string
		for object := range strings.FieldsSeq(left) {
			kind, name, _ := strings.Cut(object, "/")
			if strings.Contains(name, "egressip") && !strings.HasPrefix(kind, "event") && object != "lease.coordination.k8s.io/egressip-controller" {
				strange = append(strange, object)
			}
		}
		if len(strange) > 0 {
			return fmt.Errorf("left in namespace %s: %v", testbed.OperatorNamespace, strange)
		}
		return nil
	})
}
