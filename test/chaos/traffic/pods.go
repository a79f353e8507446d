package traffic

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/egressip-operator/egressip-operator/test/testbed"
)

// Namespace is a namespace whose pods send.
type Namespace struct {
	Name string
	// Port of the bastion that takes its datagrams; its connections go to the
	// next one.
	Port uint16
	// HostNetwork: its pods have the addresses of their nodes.
	HostNetwork bool
}

// App is the label "app" of the pods that Deploy makes.
const App = "talk"

// Serve starts the bastion's servers for namespaces. The function that it
// returns ends them.
func Serve(ctx context.Context, c *testbed.Cluster, namespaces []Namespace) (stop func() error, err error) {
	var waits []func(bool) (string, error)
	stop = func() error {
		var errs []error
		for _, wait := range waits {
			_, err := wait(true)
			errs = append(errs, err)
		}
		return errors.Join(errs...)
	}
	for _, n := range namespaces {
		for _, server := range servers(c, n) {
			wait, err := c.Background(ctx, testbed.Bastion, "traffic", "serve", "-name", n.Name, server)
			if err != nil {
				return nil, errors.Join(err, stop())
			}
			waits = append(waits, wait)
		}
	}
	return stop, nil
}

// servers are the bastion's addresses for a namespace: one of each family that the cluster has.
func servers(c *testbed.Cluster, n Namespace) []string {
	var all []string
	if !c.IPv6Only() {
		all = append(all, netip.AddrPortFrom(netip.MustParseAddr(testbed.BastionIP), n.Port).String())
	}
	if c.DualStack() || c.IPv6Only() {
		all = append(all, netip.AddrPortFrom(netip.MustParseAddr(testbed.BastionIPv6), n.Port).String())
	}
	return all
}

// args are the arguments of the traffic image for a pod of a namespace, whose
// environment has its node's and its own name as NODE and POD.
func args(c *testbed.Cluster, n Namespace, every time.Duration) []string {
	return append([]string{"chatter", "-every", every.String(), "-id", n.Name + "/$(NODE)/$(POD)"}, servers(c, n)...)
}

// Deploy makes a namespace with one sending pod on each node, and waits for
// these.
func Deploy(ctx context.Context, c *testbed.Cluster, n Namespace, every time.Duration) error {
	manifest := fmt.Sprintf(`
apiVersion: v1
kind: Namespace
metadata: {name: %[1]s}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: %[2]s, namespace: %[1]s}
spec:
  selector: {matchLabels: {app: %[2]s}}
  template:
    metadata: {labels: {app: %[2]s}}
    spec:
      hostNetwork: %[5]t
      terminationGracePeriodSeconds: 1
      automountServiceAccountToken: false
      tolerations: [{operator: Exists}]
      containers:
      - name: talk
        image: %[3]s
        imagePullPolicy: Never
        args: [%[4]s]
        env:
        - {name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
        - {name: POD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
`, n.Name, App, testbed.TrafficImage, `"`+strings.Join(args(c, n, every), `", "`)+`"`, n.HostNetwork)
	if _, err := c.Apply(ctx, manifest); err != nil {
		return fmt.Errorf("deploy %s: %w", n.Name, err)
	}
	_, err := c.AwaitPods(ctx, n.Name, "app="+App, len(c.Nodes()))
	return err
}
