package testbed

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
)

// Kubectl runs kubectl as the cluster's administrator and returns its standard
// output. It runs in the machine's own network namespace.
func (c *Cluster) Kubectl(ctx context.Context, args ...string) (string, error) {
	return c.run(ctx, "", append([]string{"kubectl"}, args...)...)
}

// Helm runs helm as the cluster's administrator.
func (c *Cluster) Helm(ctx context.Context, args ...string) (string, error) {
	return c.run(ctx, "", append([]string{"helm"}, args...)...)
}

// Apply applies a manifest and returns what kubectl says to that.
func (c *Cluster) Apply(ctx context.Context, manifest string) (string, error) {
	return c.run(ctx, manifest, "kubectl", "apply", "-f", "-")
}

// Namespace and release of the operator, as InstallChart installs it.
const (
	OperatorNamespace = "egressip-system"
	OperatorRelease   = "egressip-operator"
)

// InstallChart installs the operator's chart with the image
// egressip-operator:dev, which LoadImage has loaded, and waits until all of it
// is ready. Each of set is KEY=VALUE.
func (c *Cluster) InstallChart(ctx context.Context, chart string, set ...string) error {
	args := []string{
		"upgrade", "--install", OperatorRelease, chart, "--namespace", OperatorNamespace, "--create-namespace", "--wait", "--timeout", testenv.Stretch(3 * time.Minute).String(),
		"--set", "image.repository=egressip-operator", "--set", "image.tag=dev", "--set", "image.pullPolicy=Never",
	}
	for _, s := range set {
		args = append(args, "--set", s)
	}
	if _, err := c.Helm(ctx, args...); err != nil {
		pods, _ := c.Kubectl(ctx, "-n", OperatorNamespace, "get", "pods,events", "-o", "wide")
		logs, _ := c.Kubectl(ctx, "-n", OperatorNamespace, "logs", "--all-containers", "--prefix", "--tail=10", "-l", "app.kubernetes.io/name=egressip-operator", "--max-log-requests=10")
		return fmt.Errorf("install %s: %w\n%s\n%s", chart, err, pods, logs)
	}
	return nil
}

// UninstallChart takes the operator's chart out again.
func (c *Cluster) UninstallChart(ctx context.Context) error {
	_, err := c.Helm(ctx, "uninstall", OperatorRelease, "--namespace", OperatorNamespace, "--wait", "--timeout", testenv.Stretch(2*time.Minute).String())
	return err
}

// RESTConfig returns the administrator's configuration of a client.
func (c *Cluster) RESTConfig() (*rest.Config, error) {
	config, err := clientcmd.BuildConfigFromFlags("", c.Kubeconfig())
	if err != nil {
		return nil, fmt.Errorf("read kubeconfig: %w", err)
	}
	config.QPS, config.Burst = 200, 400
	return config, nil
}

// PodExec runs a command in a pod, and returns its standard output. It takes the way of
// kubectl exec, which needs much processor time; see Pod.Place.
func (c *Cluster) PodExec(ctx context.Context, namespace, pod string, args ...string) (string, error) {
	return c.Kubectl(ctx, append([]string{"-n", namespace, "exec", pod, "--"}, args...)...)
}

// Pod is a pod that runs.
type Pod struct {
	Namespace string
	Name      string
	UID       string
	Node      string
	// IP is its first address, of IPv6 in a test bed of that alone.
	IP netip.Addr
	// IPv6 is the zero Addr in a test bed of IPv4 alone.
	IPv6  netip.Addr
	Ready bool
}

// Place is the pod's network namespace as a place, where Exec and Background run programs
// of the test bed: their packets are the pod's, and they need neither the API server nor
// the node's kubelet.
func (p Pod) Place() string { return p.Node + "/" + p.IP.String() }

// Pods lists the pods of a namespace that match a label selector and have an
// address, sorted by node and name. Those that are being deleted are left out.
func (c *Cluster) Pods(ctx context.Context, namespace, selector string) ([]Pod, error) {
	out, err := c.Kubectl(ctx, "-n", namespace, "get", "pods", "-l", selector, "--sort-by=.spec.nodeName", "-o", "json")
	if err != nil {
		return nil, err
	}
	var list struct {
		Items []struct {
			Metadata struct {
				Name              string
				UID               string
				DeletionTimestamp string
			}
			Spec   struct{ NodeName string }
			Status struct {
				PodIP      string
				PodIPs     []struct{ IP netip.Addr }
				Conditions []struct{ Type, Status string }
			}
		}
	}
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		return nil, fmt.Errorf("list pods: %w", err)
	}
	var pods []Pod
	for _, item := range list.Items {
		ip, err := netip.ParseAddr(item.Status.PodIP)
		if err != nil || item.Metadata.DeletionTimestamp != "" {
			continue
		}
		p := Pod{Namespace: namespace, Name: item.Metadata.Name, UID: item.Metadata.UID, Node: item.Spec.NodeName, IP: ip}
		for _, further := range item.Status.PodIPs {
			if further.IP.Is6() {
				p.IPv6 = further.IP
			}
		}
		for _, condition := range item.Status.Conditions {
			p.Ready = p.Ready || condition.Type == "Ready" && condition.Status == "True"
		}
		pods = append(pods, p)
	}
	return pods, nil
}

// AwaitPods waits until n pods that match are Ready, and returns them.
func (c *Cluster) AwaitPods(ctx context.Context, namespace, selector string, n int) ([]Pod, error) {
	var pods []Pod
	err := Poll(ctx, 90*time.Second, func() error {
		var err error
		if pods, err = c.Pods(ctx, namespace, selector); err != nil {
			return err
		}
		ready := 0
		for _, p := range pods {
			if p.Ready {
				ready++
			}
		}
		if ready != n || len(pods) != n {
			return fmt.Errorf("%d of %d pods of %s (%s) are ready", ready, n, namespace, selector)
		}
		return nil
	})
	if err != nil {
		describe, descErr := c.Kubectl(ctx, "-n", namespace, "get", "pods,events", "-o", "wide")
		return nil, errors.Join(err, descErr, errors.New(describe))
	}
	return pods, nil
}
