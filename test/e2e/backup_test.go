package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/egressip-operator/egressip-operator/test/testbed"
)

const restoredNamespace = "restored"

// testBackup: a namespace is deleted with its egress IPs, one on a manual and one on an
// automatic host, and so are the HostSubnets. All is restored as a backup tool does that
// keeps managed fields and annotations: the objects first, then the Namespace with
// another UID, then its pods. These send from their first packet on.
func (b *bed) testBackup(t *testing.T) {
	const automaticIP = "192.168.7.209"
	hosts := []string{egressHost, secondHost}
	b.withdrawAfter(t)
	b.afterwards(t, func(ctx context.Context) error {
		_, err := b.Kubectl(ctx, "delete", "namespace", restoredNamespace, "--ignore-not-found", "--timeout=25s")
		return err
	})
	b.claim(t, b.egressIP)
	b.patch(t, "hostsubnet", secondHost, `{"egressCIDRs": ["192.168.7.208/29"]}`)
	apply := func(manifest string) {
		t.Helper()
		if _, err := b.Apply(t.Context(), manifest); err != nil {
			t.Fatal(err)
		}
	}
	const namespace = "apiVersion: v1\nkind: Namespace\nmetadata: {name: " + restoredNamespace + "}\n"
	// The other way round, the controller may create the NetNamespace between kubectl's two
	// requests.
	apply(fmt.Sprintf("apiVersion: network.openshift.io/v1\nkind: NetNamespace\nmetadata: {name: %s}\negressIPs: [%s, %s]\n---\n",
		restoredNamespace, b.egressIP, automaticIP) + namespace)
	verify := b.watchBastion(t, b.egressIP, automaticIP)
	leave := func() {
		t.Helper()
		b.eventually(t, func() error {
			return b.hasField(t, "netnamespace", restoredNamespace, `{.status.conditions[?(@.type=="EgressReady")].status}`, "True")
		})
		apply(b.senders())
		pods, err := b.AwaitPods(t.Context(), restoredNamespace, "app=sender", len(b.Nodes()))
		if err != nil {
			t.Fatal(err)
		}
		b.leaveWith(t, pods, func(testbed.Pod) string { return b.egressIP })
		for object, want := range map[string]string{
			"netnamespace/" + restoredNamespace: b.egressIP + " " + automaticIP,
			"hostsubnet/" + egressHost:          b.egressIP,
			"hostsubnet/" + secondHost:          automaticIP,
		} {
			if got, err := b.Kubectl(t.Context(), "get", object, "-o", "jsonpath={.egressIPs[*]}"); err != nil || got != want {
				t.Errorf("egressIPs of %s are %s, %v; want %s", object, got, err, want)
			}
		}
	}
	leave()

	backup := map[string]string{}
	for _, object := range []string{"hostsubnet/" + egressHost, "hostsubnet/" + secondHost, "netnamespace/" + restoredNamespace} {
		backup[object] = b.backUp(t, object)
	}
	if _, err := b.Kubectl(t.Context(), "delete", "namespace", restoredNamespace, "--timeout=30s"); err != nil {
		t.Fatal(err)
	}
	b.eventually(t, func() error {
		out, err := b.Kubectl(t.Context(), "get", "netnamespace", restoredNamespace, "--ignore-not-found", "-o", "name")
		if err == nil && out != "" {
			err = fmt.Errorf("%s is still there", out)
		}
		return err
	})
	for _, host := range hosts {
		if _, err := b.Kubectl(t.Context(), "delete", "hostsubnet", host); err != nil {
			t.Fatal(err)
		}
		// The controller creates it again at once: whoever comes second replaces.
		b.eventually(t, func() error {
			_, err := b.Kubectl(t.Context(), "create", "-f", backup["hostsubnet/"+host])
			if err != nil {
				_, err = b.Kubectl(t.Context(), "replace", "-f", backup["hostsubnet/"+host])
			}
			return err
		})
	}
	if _, err := b.Kubectl(t.Context(), "create", "-f", backup["netnamespace/"+restoredNamespace]); err != nil {
		t.Fatal(err)
	}
	apply(namespace)
	leave()
	verify()
}

// backUp writes an object to a file, without what an API server fills in, and
// returns its path.
func (b *bed) backUp(t *testing.T, object string) string {
	t.Helper()
	out, err := b.Kubectl(t.Context(), "get", object, "--show-managed-fields", "-o", "json")
	if err != nil {
		t.Fatal(err)
	}
	var content map[string]any
	if err := json.Unmarshal([]byte(out), &content); err != nil {
		t.Fatal(err)
	}
	delete(content, "status")
	if metadata, ok := content["metadata"].(map[string]any); ok {
		for _, field := range []string{"uid", "resourceVersion", "creationTimestamp", "generation"} {
			delete(metadata, field)
		}
	}
	data, err := json.Marshal(content)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), strings.ReplaceAll(object, "/", "-")+".json")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// senders are pods that send to the bastion without end, one on each node.
func (b *bed) senders() string {
	return fmt.Sprintf(`
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: sender, namespace: %s}
spec:
  selector: {matchLabels: {app: sender}}
  template:
    metadata: {labels: {app: sender}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: sender
        image: %s
        imagePullPolicy: Never
        args: [watch, -every, 100ms, -timeout, 1s, "tcp://%s"]
`, restoredNamespace, testbed.TrafficImage, b.echo())
}
