package install_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/egressip-operator/egressip-operator/internal/testenv/binaries"
)

// egressIPDefinition is the name of the definition of EgressIPs.
const egressIPDefinition = "CustomResourceDefinition egressips.k8s.ovn.org"

// TestEgressIPDefinition: the chart brings the definition of EgressIPs, unless it must not, or the
// cluster has one that is another software's: that one is left alone, and the installation fails
// where EgressIPs are demanded. One that is ours is upgraded.
func TestEgressIPDefinition(t *testing.T) {
	t.Parallel()
	for enabled, want := range map[string]bool{"auto": true, "true": true, "false": false} {
		all, err := render(t, "egressIPAPI.enabled="+enabled)
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := all[egressIPDefinition]; ok != want {
			t.Errorf("enabled=%s: the definition is installed: %t", enabled, ok)
		}
	}
	dir, err := binaries.Dir(t.Context(), "helm")
	if err != nil {
		t.Fatal(err)
	}
	c, helm := startCluster(t), filepath.Join(dir, "helm")
	install := func(enabled string) (string, error) {
		return c.says(t, helm, "install", "egressip-operator", chart, "--dry-run=server", "--namespace", "default", "--set", "egressIPAPI.enabled="+enabled)
	}
	const kind = "name: egressips.k8s.ovn.org\n"
	if out, err := install("auto"); err != nil || !strings.Contains(out, kind) {
		t.Errorf("without a definition: %v; is it installed: %t", err, strings.Contains(out, kind))
	}
	definition, err := os.ReadFile("../../config/egressip/k8s.ovn.org_egressips.yaml")
	if err != nil {
		t.Fatal(err)
	}
	foreign := filepath.Join(t.TempDir(), "foreign.yaml")
	if err := os.WriteFile(foreign, []byte(strings.ReplaceAll(string(definition), "egressip.network.openshift.io/served-by", "example.com/served-by")), 0o600); err != nil {
		t.Fatal(err)
	}
	c.must(t, c.kubectl, "apply", "-f", foreign)
	if out, err := install("auto"); err != nil || strings.Contains(out, kind) || !strings.Contains(out, "EgressIPs are not served") {
		t.Errorf("beside another software's definition: %v; is it installed: %t\n%s", err, strings.Contains(out, kind), out[max(0, len(out)-1500):])
	}
	if out, err := install("true"); err == nil || !strings.Contains(out, "another software's") {
		t.Errorf("demanded beside another software's definition: %v\n%s", err, out)
	}
	if out, err := install("false"); err != nil || strings.Contains(out, kind) {
		t.Errorf("not wanted beside another software's definition: %v\n%s", err, out)
	}
	c.must(t, c.kubectl, "annotate", "crd", "egressips.k8s.ovn.org", "egressip.network.openshift.io/served-by=egressip-operator",
		"meta.helm.sh/release-name=egressip-operator", "meta.helm.sh/release-namespace=default")
	c.must(t, c.kubectl, "label", "crd", "egressips.k8s.ovn.org", "app.kubernetes.io/managed-by=Helm")
	if out, err := install("auto"); err != nil || !strings.Contains(out, kind) {
		t.Errorf("beside our own definition: %v; is it installed: %t", err, strings.Contains(out, kind))
	}
}
