package install_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/internal/testenv/apiserver"
)

// ocVariable names a program oc, whose commands are tested if it is set.
const ocVariable = "EGRESSIP_TEST_OC"

// cluster is an API server, and the programs that talk to it.
type cluster struct {
	*envtest.Environment
	kubectl, kubeconfig string
}

func startCluster(t *testing.T) *cluster {
	t.Helper()
	c := &cluster{Environment: apiserver.Start(t, apiserver.Options{}), kubeconfig: filepath.Join(t.TempDir(), "kubeconfig")}
	admin, err := c.AddUser(envtest.User{Name: "admin", Groups: []string{"system:masters"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	text, err := admin.KubeConfig()
	if err == nil {
		err = os.WriteFile(c.kubeconfig, text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	c.kubectl = c.ControlPlane.KubectlPath
	return c
}

// says runs a client with the arguments, and returns all that it prints.
func (c *cluster) says(t *testing.T, program string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+c.kubeconfig, "HOME="+t.TempDir())
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (c *cluster) must(t *testing.T, program string, args ...string) string {
	t.Helper()
	out, err := c.says(t, program, args...)
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", filepath.Base(program), strings.Join(args, " "), err, out)
	}
	return out
}

// TestTheAPIServerTakesEverything: an API server takes all objects of config/default, and
// those of a second time, and then the commands by which egress IPs of OpenShift SDN are
// configured, letter by letter: with kubectl, and with oc where there is one.
func TestTheAPIServerTakesEverything(t *testing.T) {
	t.Parallel()
	c := startCluster(t)
	for range 2 {
		c.must(t, c.kubectl, "apply", "--server-side", "-k", "../../config/default")
	}
	testenv.Until(t, "the kinds are served", func() bool {
		_, err := c.says(t, c.kubectl, "get", "netnamespaces,hostsubnets")
		return err == nil
	})
	clients := []string{c.kubectl}
	if oc := os.Getenv(ocVariable); oc != "" {
		clients = append(clients, oc)
	}
	for _, client := range clients {
		t.Run(filepath.Base(client), func(t *testing.T) { c.configure(t, client) })
	}
}

// configure plays what the documentation of OpenShift has of egress IPs.
func (c *cluster) configure(t *testing.T, client string) {
	t.Helper()
	manifest := filepath.Join(t.TempDir(), "objects.yaml")
	err := os.WriteFile(manifest, []byte(`apiVersion: network.openshift.io/v1
kind: NetNamespace
metadata: {name: project1}
netname: project1
netid: 3714105
---
apiVersion: network.openshift.io/v1
kind: HostSubnet
metadata: {name: compute-0}
host: compute-0
hostIP: 192.168.7.11
subnet: 10.128.2.0/23
`), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	c.must(t, client, "create", "-f", manifest)
	for _, step := range []struct {
		command []string
		want    []string
	}{
		{[]string{"patch", "netnamespace", "project1", "--type=merge", "-p", `{"egressIPs": ["192.168.7.200"]}`}, []string{"netnamespace.network.openshift.io/project1 patched"}},
		{[]string{"get", "netnamespace", "project1"}, []string{"NAME", "NETID", "EGRESS IPS", "3714105", `["192.168.7.200"]`}},
		{[]string{"patch", "hostsubnet", "compute-0", "--type=merge", "-p", `{"egressIPs": ["192.168.7.200/24"]}`}, []string{"hostsubnet.network.openshift.io/compute-0 patched"}},
		{[]string{"patch", "hostsubnet", "compute-0", "--type=merge", "-p", `{"egressIPs": ["192.168.7.200", "192.168.7.201"]}`}, []string{"patched"}},
		{[]string{"get", "hostsubnets"}, []string{"NAME", "HOST", "HOST IP", "SUBNET", "EGRESS CIDRS", "EGRESS IPS", "compute-0", "10.128.2.0/23", `["192.168.7.200","192.168.7.201"]`}},
		{[]string{"patch", "hostsubnet", "compute-0", "--type=merge", "-p", `{"egressCIDRs": ["192.168.7.0/24"]}`}, []string{"patched"}},
		{[]string{"get", "hostsubnet", "compute-0", "-o", "jsonpath={.egressCIDRs}"}, []string{`["192.168.7.0/24"]`}},
		{[]string{"patch", "netnamespace", "project1", "--type=merge", "-p", `{"egressIPs": []}`}, []string{"patched"}},
		{[]string{"describe", "netnamespace", "project1"}, []string{"project1", "3714105"}},
		{[]string{"delete", "-f", manifest}, []string{"deleted"}},
	} {
		out := c.must(t, client, step.command...)
		for _, want := range step.want {
			if !strings.Contains(out, want) {
				t.Errorf("%s has no %q:\n%s", strings.Join(step.command, " "), want, out)
			}
		}
	}
	// What cannot work says so, as with OpenShift SDN.
	c.must(t, client, "create", "-f", manifest)
	for _, command := range [][]string{
		{"patch", "netnamespace", "project1", "--type=merge", "-p", `{"egressIPs": ["192.168.7.200/24"]}`},
		{"patch", "netnamespace", "project1", "--type=merge", "-p", `{"egressIPs": ["fe80::1%eth0"]}`},
		{"patch", "hostsubnet", "compute-0", "--type=merge", "-p", `{"egressCIDRs": ["10.1.1/24"]}`},
		{"patch", "netnamespace", "project1", "-p", `{"egressIPs": ["192.168.7.200"]}`},
	} {
		if out, err := c.says(t, client, command...); !errors.As(err, new(*exec.ExitError)) {
			t.Errorf("%s: %v\n%s", strings.Join(command, " "), err, out)
		}
	}
	c.must(t, client, "delete", "-f", manifest)
}
