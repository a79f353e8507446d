package install_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/rest"

	"github.com/egressip-operator/egressip-operator/internal/installcheck"
	"github.com/egressip-operator/egressip-operator/internal/testenv"
)

const digest = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

// everything are values that have the chart make all that it can, apart from a NetworkPolicy, which
// needs a controller outside the host's network.
func everything() []string {
	return []string{
		"image.digest=" + digest, "image.pullSecrets[0].name=registry", "commonLabels.team=net", "namespace.create=true", "namespace.labels.tier=system",
		"agent.bootLock.enabled=true", "clusterCIDRs={10.244.0.0/16}", "serviceCIDRs={10.96.0.0/12,fd00:96::/112}", "excludeCIDRs={198.51.100.0/24}",
		"podMonitor.enabled=true", "prometheusRule.enabled=true", "dashboard.enabled=true",
		"controller.extraArgs={--kube-api-burst=7}", "controller.extraEnv[0].name=HTTPS_PROXY", "controller.extraEnv[0].value=http://proxy:3128",
		"controller.podLabels.a=b", "controller.podAnnotations.c=d", "controller.podDisruptionBudget.maxUnavailable=50%",
		"agent.extraArgs={--v=4}", "agent.extraEnv[0].name=GODEBUG", "agent.extraEnv[0].value=x=1", "agent.podLabels.a=b", "agent.podAnnotations.c=d",
		"agent.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[0].key=kubernetes.io/arch",
		"agent.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[0].operator=Exists",
	}
}

// template returns the pod template of a workload, and its containers, those that begin first.
func template(t *testing.T, all map[string]map[string]any, workload string) (pod unstructured.Unstructured, containers []map[string]any) {
	t.Helper()
	spec, _, err := unstructured.NestedMap(all[workload], "spec", "template")
	if err != nil || spec == nil {
		t.Fatalf("%s has no pods: %v", workload, err)
	}
	for _, kind := range []string{"initContainers", "containers"} {
		list, _, err := unstructured.NestedSlice(spec, "spec", kind)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range list {
			containers = append(containers, c.(map[string]any))
		}
	}
	return unstructured.Unstructured{Object: spec}, containers
}

// TestPodsAsAsked: labels, annotations, the image by its digest, arguments and environment of both
// workloads are those of the values.
func TestPodsAsAsked(t *testing.T) {
	all, err := render(t, everything()...)
	if err != nil {
		t.Fatal(err)
	}
	for workload, want := range map[string]struct{ last, env string }{
		"DaemonSet egressip-agent":       {"--v=4", "GODEBUG"},
		"Deployment egressip-controller": {"--kube-api-burst=7", "HTTPS_PROXY"},
	} {
		pod, containers := template(t, all, workload)
		if pod.GetLabels()["a"] != "b" || pod.GetLabels()["app.kubernetes.io/name"] != "egressip-operator" || pod.GetAnnotations()["c"] != "d" {
			t.Errorf("%s: labels %v, annotations %v", workload, pod.GetLabels(), pod.GetAnnotations())
		}
		for _, c := range containers {
			if image := c["image"].(string); !strings.HasSuffix(image, "@"+digest) {
				t.Errorf("%s: image %s", workload, image)
			}
		}
		last := args(t, all[workload])
		env := fmt.Sprint(containers[len(containers)-1]["env"])
		if last[len(last)-1] != want.last || !strings.Contains(env, "name:"+want.env) || !strings.Contains(env, "name:NODE_NAME") {
			t.Errorf("%s: last argument %s, environment %s", workload, last[len(last)-1], env)
		}
	}
	for name, object := range all {
		labels := (&unstructured.Unstructured{Object: object}).GetLabels()
		if !strings.HasPrefix(name, "CustomResourceDefinition ") && labels["team"] != "net" {
			t.Errorf("%s has labels %v, and not those of all objects", name, labels)
		}
	}
	ns := unstructured.Unstructured{Object: all["Namespace "+namespace]}
	if l := ns.GetLabels(); l["pod-security.kubernetes.io/enforce"] != "privileged" || l["tier"] != "system" {
		t.Errorf("the Namespace has labels %v", l)
	}
}

// TestBudget: it stops two controllers from being evicted at once, and no drain where there is one.
func TestBudget(t *testing.T) {
	for set, want := range map[string]any{
		"controller.replicas=2":                             int64(1),
		"controller.replicas=1":                             nil,
		"controller.podDisruptionBudget.enabled=false":      nil,
		"controller.podDisruptionBudget.maxUnavailable=25%": "25%",
	} {
		all, err := render(t, set)
		if err != nil {
			t.Fatal(err)
		}
		got, _, err := unstructured.NestedFieldNoCopy(all["PodDisruptionBudget egressip-controller"], "spec", "maxUnavailable")
		if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: at most %v unavailable, want %v, %v", set, got, want, err)
		}
	}
}

// TestNetworkPolicy: it lets in who asks for health and metrics; and it is refused where no pod is
// subject to it.
func TestNetworkPolicy(t *testing.T) {
	all, err := render(t, "networkPolicy.enabled=true", "controller.hostNetwork=false", "networkPolicy.metricsFrom[0].namespaceSelector.matchLabels.a=b")
	if err != nil {
		t.Fatal(err)
	}
	ingress, _, err := unstructured.NestedSlice(all["NetworkPolicy egressip-controller"], "spec", "ingress")
	if err != nil || len(ingress) != 2 {
		t.Fatalf("%v, %v", ingress, err)
	}
	for i, want := range []struct {
		port string
		from bool
	}{{"9791", false}, {"9790", true}} {
		rule := ingress[i].(map[string]any)
		if _, from := rule["from"]; !strings.Contains(fmt.Sprint(rule["ports"]), "port:"+want.port) || from != want.from {
			t.Errorf("rule %v, want port %s", rule, want.port)
		}
	}
	if _, err := render(t, "networkPolicy.enabled=true"); err == nil || !strings.Contains(err.Error(), "controller.hostNetwork=false") {
		t.Errorf("a policy that nothing is subject to: %v", err)
	}
}

// TestUnknownValues: a key that does not exist is refused with its name, at each level, and so is a
// value of the wrong kind.
func TestUnknownValues(t *testing.T) {
	for set, names := range map[string]string{
		"image.typo=1": "typo", "crds.typo=1": "typo", "egressIPAPI.typo=1": "typo", "admissionPolicy.typo=1": "typo", "metrics.typo=1": "typo",
		"namespace.typo=1": "typo", "controller.typo=1": "typo", "agent.typo=1": "typo", "agent.bootLock.typo=1": "typo", "networkPolicy.typo=1": "typo",
		"podMonitor.typo=1": "typo", "prometheusRule.typo=1": "typo", "dashboard.typo=1": "typo", "tests.typo=1": "typo",
		"agent.resources.typo.cpu=1": "typo", "controller.affinity.typo=1": "typo", "controller.podDisruptionBudget.typo=1": "typo",
		"agent.tolerations[0].typo=1": "typo", "agent.extraEnv[0].typo=1": "typo", "image.pullSecrets[0].typo=1": "typo",
		"image.digest=abc":                                   "digest",
		"agent.resources.limits.cpu=lots":                    "cpu",
		"agent.extraArgs={v}":                                "extraArgs",
		"controller.podLabels.a.b=1":                         "podLabels",
		"agent.maxUnavailable=many":                          "maxUnavailable",
		"podMonitor.interval=often":                          "interval",
		"commonLabels=1":                                     "commonLabels",
		"agent.nodeSelector.a=null,agent.nodeSelector.b.c=1": "nodeSelector",
	} {
		if _, err := render(t, set); err == nil || !strings.Contains(err.Error(), names) {
			t.Errorf("--set %s: %v, want a refusal that names %s", set, err, names)
		}
	}
}

// TestHelmTest: the hook's pod may do what its program needs, and no more; and it can be left out.
func TestHelmTest(t *testing.T) {
	all, err := render(t, everything()...)
	if err != nil {
		t.Fatal(err)
	}
	hooks := 0
	for name, object := range all {
		annotations := (&unstructured.Unstructured{Object: object}).GetAnnotations()
		if annotations["helm.sh/hook"] == "" {
			continue
		}
		hooks++
		if annotations["helm.sh/hook"] != "test" || !strings.HasSuffix(name, " egressip-test") || annotations["helm.sh/hook-delete-policy"] == "" {
			t.Errorf("%s has annotations %v", name, annotations)
		}
	}
	for _, role := range []string{"ClusterRole egressip-test", "Role egressip-test"} {
		rules, _, err := unstructured.NestedSlice(all[role], "rules")
		if text := fmt.Sprint(rules); err != nil || len(rules) == 0 || strings.Contains(text, "*") || !strings.Contains(text, "verbs:[list]") && !strings.Contains(text, "verbs:[get]") {
			t.Errorf("%s allows %v, %v", role, rules, err)
		}
	}
	containers, _, err := unstructured.NestedSlice(all["Pod egressip-test"], "spec", "containers")
	if err != nil || len(containers) != 1 || !strings.Contains(fmt.Sprint(containers), "[check --namespace="+namespace+" --within=2m]") {
		t.Errorf("the test runs %v, %v", containers, err)
	}
	if hooks != 6 {
		t.Errorf("%d hooks", hooks)
	}
	if all, err = render(t, "tests.enabled=false"); err != nil || all["Pod egressip-test"] != nil {
		t.Errorf("a test although there must be none, %v", err)
	}
}

// TestTheAPIServerTakesEveryValue: an API server takes, in a dry run that refuses unknown fields, what the
// chart makes with many values, and for each version of Kubernetes. It has no definitions of the
// Prometheus operator's kinds.
func TestTheAPIServerTakesEveryValue(t *testing.T) {
	t.Parallel()
	c := startCluster(t)
	c.must(t, c.kubectl, "create", "namespace", namespace)
	for name, values := range map[string][]string{
		"all":                        everything(),
		"outside the host's network": {"controller.hostNetwork=false", "networkPolicy.enabled=true", "networkPolicy.metricsFrom[0].podSelector.matchLabels.a=b"},
	} {
		for _, version := range []string{"1.31.0", "1.34.0", "1.37.0"} {
			arguments := []string{"template", "egressip-operator", chart, "--namespace", namespace, "--kube-version", version}
			for _, s := range values {
				arguments = append(arguments, "--set", s)
			}
			out, err := run(t.Context(), t, "helm", arguments...)
			if err != nil {
				t.Fatal(err)
			}
			documents := slices.DeleteFunc(strings.Split(out, "\n---\n"), func(d string) bool {
				return strings.Contains(d, "apiVersion: monitoring.coreos.com/v1") || !strings.Contains(d, "\nkind:")
			})
			if len(documents) < 20 {
				t.Fatalf("%s: %d objects", name, len(documents))
			}
			file := filepath.Join(t.TempDir(), "manifest.yaml")
			if err := os.WriteFile(file, []byte(strings.Join(documents, "\n---\n")), 0o600); err != nil {
				t.Fatal(err)
			}
			if out, err := c.says(t, c.kubectl, "apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", file); err != nil {
				t.Errorf("%s, for Kubernetes %s: %v\n%s", name, version, err, out)
			}
		}
	}
}

// TestCheckWithItsOwnRights: the hook's ServiceAccount may read all that its program asks an API
// server for; what is missing is said, and once nothing is, it succeeds.
func TestCheckWithItsOwnRights(t *testing.T) {
	t.Parallel()
	c := startCluster(t)
	c.must(t, c.kubectl, "create", "namespace", namespace)
	out, err := run(t.Context(), t, "helm", "template", "egressip-operator", chart, "--namespace", namespace, "--kube-version", "1.37.0")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "manifest.yaml")
	documents := slices.DeleteFunc(strings.Split(out, "\n---\n"), func(d string) bool { return strings.Contains(d, "kind: Pod\n") })
	if err := os.WriteFile(file, []byte(strings.Join(documents, "\n---\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	c.must(t, c.kubectl, "apply", "--server-side", "-f", file)
	testenv.Until(t, "HostSubnets are served", func() bool {
		_, err := c.says(t, c.kubectl, "get", "hostsubnets")
		return err == nil
	})
	cfg := rest.CopyConfig(c.Config)
	cfg.Impersonate = rest.ImpersonationConfig{
		UserName: "system:serviceaccount:" + namespace + ":egressip-test", Groups: []string{"system:serviceaccounts", "system:authenticated"},
	}
	check := func(within time.Duration) error {
		ctx, cancel := context.WithTimeout(t.Context(), within)
		defer cancel()
		return installcheck.Wait(ctx, cfg, namespace, func(missing error) { t.Logf("missing: %v", missing) })
	}
	// Rights are known a moment after they were given.
	testenv.Until(t, "the account may read all", func() bool {
		err := check(time.Second)
		return err != nil && !strings.Contains(err.Error(), "forbidden")
	})
	missing := check(time.Second)
	for _, want := range []string{"no controller leads", "egressip-agent", "no HostSubnets"} {
		if missing == nil || !strings.Contains(missing.Error(), want) {
			t.Errorf("%v, want %q", missing, want)
		}
	}
	apply := func(manifest string, more ...string) {
		t.Helper()
		path := filepath.Join(t.TempDir(), "object.yaml")
		if err := os.WriteFile(path, []byte(manifest), 0o600); err != nil {
			t.Fatal(err)
		}
		c.must(t, c.kubectl, append([]string{"apply", "--server-side", "-f", path}, more...)...)
	}
	apply(fmt.Sprintf(`{apiVersion: coordination.k8s.io/v1, kind: Lease, metadata: {name: egressip-controller, namespace: %s},
  spec: {holderIdentity: node1_x, leaseDurationSeconds: 3600, renewTime: %q}}`, namespace, time.Now().UTC().Format("2006-01-02T15:04:05.000000Z")))
	apply(fmt.Sprintf(`{apiVersion: apps/v1, kind: DaemonSet, metadata: {name: egressip-agent, namespace: %s},
  status: {observedGeneration: 1, desiredNumberScheduled: 2, numberReady: 2, currentNumberScheduled: 2, numberMisscheduled: 0}}`, namespace), "--subresource=status")
	apply(`{apiVersion: network.openshift.io/v1, kind: HostSubnet, metadata: {name: node1}}`)
	if err := check(testenv.Patience); err != nil {
		t.Error(err)
	}
}
