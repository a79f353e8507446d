package install_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/internal/testenv/binaries"
)

// reported is the path of a field that definitions of former versions did not have.
func reported() []string {
	return strings.Split("schema.openAPIV3Schema.properties.status.properties.agent.properties.otherNetworks", ".")
}

// TestDefinitionsAcrossReleases: a release that is uninstalled leaves definitions and objects. One
// of another name, in another namespace, is refused with a word on who owns them; with
// --take-ownership it upgrades them, and so does each upgrade of it. The objects stay as they are.
func TestDefinitionsAcrossReleases(t *testing.T) {
	t.Parallel()
	dir, err := binaries.Dir(t.Context(), "helm")
	if err != nil {
		t.Fatal(err)
	}
	c, helm := startCluster(t), filepath.Join(dir, "helm")
	c.must(t, helm, "install", "first", chart, "--namespace", "one", "--create-namespace")
	objects := filepath.Join(t.TempDir(), "objects.yaml")
	err = os.WriteFile(objects, []byte(`{apiVersion: network.openshift.io/v1, kind: NetNamespace, metadata: {name: shop}, netname: shop, netid: 7, egressIPs: [192.0.2.10]}
---
{apiVersion: network.openshift.io/v1, kind: HostSubnet, metadata: {name: node1}, host: node1, hostIP: 192.0.2.1, egressIPs: [192.0.2.10]}
---
{apiVersion: k8s.ovn.org/v1, kind: EgressIP, metadata: {name: shop}, spec: {egressIPs: [192.0.2.11], namespaceSelector: {}}}
`), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	testenv.Until(t, "the kinds are served", func() bool {
		_, err := c.says(t, c.kubectl, "apply", "-f", objects)
		return err == nil
	})
	uids := func() string {
		t.Helper()
		return c.must(t, c.kubectl, "get", "netnamespaces,hostsubnets,egressips", "-o", "jsonpath={.items[*].metadata.uid}")
	}
	was := uids()
	if out := c.must(t, helm, "uninstall", "first", "--namespace", "one"); !strings.Contains(out, "hostsubnets.network.openshift.io") {
		t.Errorf("helm does not say that it keeps the definitions:\n%s", out)
	}
	if left := c.must(t, c.kubectl, "get", "all,serviceaccounts,roles,rolebindings,clusterroles,clusterrolebindings,validatingadmissionpolicies,validatingadmissionpolicybindings,poddisruptionbudgets,configmaps,secrets",
		"--all-namespaces", "--selector=app.kubernetes.io/name=egressip-operator", "--output=name"); left != "" {
		t.Errorf("left after the uninstallation:\n%s", left)
	}

	c.formerDefinition(t)
	second := []string{"install", "second", chart, "--namespace", "two", "--create-namespace"}
	if out, err := c.says(t, helm, second...); err == nil || !strings.Contains(out, "meta.helm.sh/release-name") || !strings.Contains(out, "CustomResourceDefinition") {
		t.Errorf("definitions of another release are taken without being asked for: %v\n%s", err, out)
	}
	c.must(t, helm, append(second, "--take-ownership")...)
	if !c.reports(t) {
		t.Error("the second release has not upgraded the definition")
	}
	c.formerDefinition(t)
	c.must(t, helm, "upgrade", "second", chart, "--namespace", "two")
	if !c.reports(t) {
		t.Error("an upgrade has not upgraded the definition")
	}
	if is := uids(); is != was {
		t.Errorf("objects are %s, were %s", is, was)
	}
	if got := c.must(t, c.kubectl, "get", "netnamespace", "shop", "-o", "jsonpath={.egressIPs[*]}"); got != "192.0.2.10" {
		t.Errorf("egress IPs are %s", got)
	}
}

// definition returns the definition of HostSubnets, and its only version.
func (c *cluster) definition(t *testing.T) (crd, version map[string]any) {
	t.Helper()
	if err := json.Unmarshal([]byte(c.must(t, c.kubectl, "get", "crd", "hostsubnets.network.openshift.io", "-o", "json")), &crd); err != nil {
		t.Fatal(err)
	}
	versions, _, err := unstructured.NestedFieldNoCopy(crd, "spec", "versions")
	if err != nil {
		t.Fatal(err)
	}
	return crd, versions.([]any)[0].(map[string]any)
}

// reports reports whether the definition of HostSubnets has what former versions did not have.
func (c *cluster) reports(t *testing.T) bool {
	t.Helper()
	_, version := c.definition(t)
	_, ok, err := unstructured.NestedFieldNoCopy(version, reported()...)
	if err != nil {
		t.Fatal(err)
	}
	return ok
}

// formerDefinition makes the definition of HostSubnets that of a former version.
func (c *cluster) formerDefinition(t *testing.T) {
	t.Helper()
	if !c.reports(t) {
		t.Fatalf("HostSubnets have no %v", reported())
	}
	crd, version := c.definition(t)
	unstructured.RemoveNestedField(version, reported()...)
	text, err := json.Marshal(crd)
	file := filepath.Join(t.TempDir(), "crd.json")
	if err == nil {
		err = os.WriteFile(file, text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	c.must(t, c.kubectl, "replace", "-f", file)
}
