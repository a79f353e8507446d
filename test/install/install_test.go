package install_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"

	"github.com/egressip-operator/egressip-operator/internal/testenv/binaries"
)

const (
	chart     = "../../charts/egressip-operator"
	namespace = "egressip-system"
)

// run runs a pinned program and returns what it prints.
func run(ctx context.Context, t *testing.T, program string, args ...string) (string, error) {
	t.Helper()
	dir, err := binaries.Dir(ctx, program)
	if err != nil {
		t.Fatal(err)
	}
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, filepath.Join(dir, program), args...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), errors.Join(err, errors.New(stderr.String()))
	}
	return stdout.String(), nil
}

// render returns the objects of the chart with the given values.
func render(t *testing.T, set ...string) (map[string]map[string]any, error) {
	t.Helper()
	args := []string{"template", "egressip-operator", chart, "--namespace", namespace, "--kube-version", "1.37.0"}
	for _, s := range set {
		args = append(args, "--set", s)
	}
	out, err := run(t.Context(), t, "helm", args...)
	if err != nil {
		return nil, err
	}
	return objects(t, out), nil
}

// objects reads manifests, by kind and name.
func objects(t *testing.T, manifests string) map[string]map[string]any {
	t.Helper()
	all := make(map[string]map[string]any)
	decoder := yaml.NewYAMLOrJSONDecoder(strings.NewReader(manifests), 4096)
	for {
		var object unstructured.Unstructured
		err := decoder.Decode(&object)
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		if len(object.Object) > 0 {
			all[object.GetKind()+" "+object.GetName()] = object.Object
		}
	}
}

// essence removes what says who installed the object.
func essence(v any) {
	switch v := v.(type) {
	case map[string]any:
		for _, key := range []string{
			"helm.sh/chart", "helm.sh/resource-policy", "app.kubernetes.io/managed-by",
			"app.kubernetes.io/instance", "app.kubernetes.io/version",
		} {
			delete(v, key)
		}
		for key, child := range v {
			essence(child)
			if m, ok := child.(map[string]any); ok && len(m) == 0 && key == "labels" {
				delete(v, key)
			}
		}
	case []any:
		for _, child := range v {
			essence(child)
		}
	}
}

// TestKustomizeInstallsTheSame: kubectl apply -k config/default and config/egressip make the
// same objects as helm install; kustomize makes the Namespace as well.
func TestKustomizeInstallsTheSame(t *testing.T) {
	helm, err := render(t)
	if err != nil {
		t.Fatal(err)
	}
	out := ""
	for _, dir := range []string{"default", "egressip"} {
		part, err := run(t.Context(), t, "kubectl", "kustomize", "../../config/"+dir)
		if err != nil {
			t.Fatal(err)
		}
		out += "---\n" + part
	}
	kustomize := objects(t, out)
	if _, ok := kustomize["Namespace "+namespace]; !ok {
		t.Errorf("config/default makes no Namespace %s", namespace)
	}
	delete(kustomize, "Namespace "+namespace)
	if len(helm) < 12 {
		t.Errorf("the chart makes %d objects only", len(helm))
	}
	for name, object := range helm { // kubectl runs no hooks
		if _, hook := (&unstructured.Unstructured{Object: object}).GetAnnotations()["helm.sh/hook"]; hook {
			delete(helm, name)
		}
	}
	for _, all := range []map[string]map[string]any{helm, kustomize} {
		for _, object := range all {
			essence(object)
		}
	}
	if diff := cmp.Diff(helm, kustomize); diff != "" {
		t.Errorf("\"make generate\" was forgotten (-helm +kustomize):\n%s", diff)
	}
}

// TestOperatorAloneHasNoDefinitions: config/operator is what may be deleted and applied
// again: with a definition, all NetNamespaces and HostSubnets would go.
func TestOperatorAloneHasNoDefinitions(t *testing.T) {
	out, err := run(t.Context(), t, "kubectl", "kustomize", "../../config/operator")
	if err != nil {
		t.Fatal(err)
	}
	operator := objects(t, out)
	if _, ok := operator["DaemonSet egressip-agent"]; !ok {
		t.Errorf("config/operator makes no agents, but %d objects", len(operator))
	}
	for name := range operator {
		if kind, _, _ := strings.Cut(name, " "); kind == "CustomResourceDefinition" || kind == "Namespace" {
			t.Errorf("config/operator makes %s", name)
		}
	}
}

// TestWhereWorkloadsRun: agents run on every node, whatever its taints, and are the last to
// be evicted; controllers may run on control plane nodes, prefer these, and are critical
// too. Each can be changed.
func TestWhereWorkloadsRun(t *testing.T) {
	const preferred = "nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution"
	for _, tc := range []struct {
		workload, priority, toleration string
		affinity                       bool
	}{
		{"DaemonSet egressip-agent", "system-node-critical", "map[operator:Exists]", false},
		{"Deployment egressip-controller", "system-cluster-critical", "map[effect:NoSchedule key:node-role.kubernetes.io/control-plane operator:Exists]", true},
	} {
		spec := func(set ...string) map[string]any {
			all, err := render(t, set...)
			if err != nil {
				t.Fatal(err)
			}
			spec, _, err := unstructured.NestedMap(all[tc.workload], "spec", "template", "spec")
			if err != nil {
				t.Fatal(err)
			}
			return spec
		}
		is := spec()
		if got := is["priorityClassName"]; got != tc.priority {
			t.Errorf("%s: priority class %v, want %s", tc.workload, got, tc.priority)
		}
		if got := fmt.Sprint(is["tolerations"]); got != "["+tc.toleration+"]" {
			t.Errorf("%s: tolerations %s, want %s", tc.workload, got, tc.toleration)
		}
		prefers, _, _ := unstructured.NestedSlice(is, append([]string{"affinity"}, strings.Split(preferred, ".")...)...)
		if found := strings.Contains(fmt.Sprint(prefers), "node-role.kubernetes.io/control-plane"); found != tc.affinity {
			t.Errorf("%s prefers control plane nodes: %t, %v", tc.workload, found, is["affinity"])
		}
		_, value, _ := strings.Cut(tc.workload, " egressip-")
		is = spec(value+".priorityClassName=", value+".tolerations=null")
		if is["priorityClassName"] != nil || is["tolerations"] != nil {
			t.Errorf("%s without a priority class and tolerations: %v, %v", tc.workload, is["priorityClassName"], is["tolerations"])
		}
	}
}

// TestDefinitionsStay: a CRD that Helm removed would take every NetNamespace and
// HostSubnet with it.
func TestDefinitionsStay(t *testing.T) {
	all, err := render(t)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"netnamespaces", "hostsubnets"} {
		crd := unstructured.Unstructured{Object: all["CustomResourceDefinition "+name+".network.openshift.io"]}
		if crd.GetAnnotations()["helm.sh/resource-policy"] != "keep" {
			t.Errorf("the definition of %s has annotations %v, want helm.sh/resource-policy: keep", name, crd.GetAnnotations())
		}
	}
	without, err := render(t, "crds.install=false")
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := without["CustomResourceDefinition netnamespaces.network.openshift.io"]; ok {
		t.Error("crds.install=false installs definitions")
	}
}

// args returns the arguments of the first container of a workload.
func args(t *testing.T, object map[string]any) []string {
	t.Helper()
	containers, _, err := unstructured.NestedSlice(object, "spec", "template", "spec", "containers")
	if err != nil || len(containers) == 0 {
		t.Fatalf("no container: %v", err)
	}
	all, _, err := unstructured.NestedStringSlice(containers[0].(map[string]any), "args")
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestValues: each value reaches its flag, and one that cannot be is refused
// with its name.
func TestValues(t *testing.T) {
	all, err := render(t, "clusterCIDRs={10.0.0.0/8,172.16.0.0/12}", "serviceCIDRs={10.96.0.0/12}", "excludeCIDRs={198.51.100.0/24}", "includeCIDRs={203.0.113.0/24}", "overlayPort=4790",
		"markMask=0x1f00", "strict=false", "agent.criSocket=none", "agent.withdrawAfter=3s", "agent.arpProbe=off",
		"agent.arpIgnoreMACs={12:34:56:78:9a:bc,02:00:00:00:00:01}", "agent.announceInterval=5m", "agent.awayAfter=3m", "backend=iptables-both", "logFormat=json", "logLevel=3",
		"metrics.secure=false", "metrics.bindAddress=127.0.0.1", "agent.metricsPort=1792", "agent.healthPort=1793", "controller.metricsPort=0", "controller.healthPort=1791",
		"agent.resyncPeriod=5s", "agent.pinDir=/sys/fs/bpf/x", "controller.defaultCapacity=7", "controller.findNetworks=false", "image.repository=r", "image.tag=t")
	if err != nil {
		t.Fatal(err)
	}
	for workload, want := range map[string][]string{
		"DaemonSet egressip-agent": {
			"--metrics-secure=false", "--metrics-bind-address=127.0.0.1:1792", "--health-probe-bind-address=127.0.0.1:1793",
			"--daemonset=" + namespace + "/egressip-agent", // else each upgrade gives the egress IPs up
			"--cluster-cidrs=10.0.0.0/8,172.16.0.0/12", "--service-cidrs=10.96.0.0/12", "--exclude-cidrs=198.51.100.0/24", "--include-cidrs=203.0.113.0/24", "--overlay-port=4790", "--mark-mask=0x1f00",
			"--strict=false", "--cri-socket=none", "--withdraw-after=3s",
			"--arp-probe=off", "--arp-ignore-macs=12:34:56:78:9a:bc,02:00:00:00:00:01", "--announce-interval=5m", "--away-after=3m", "--backend=iptables-both", "--log-format=json", "--v=3", "--resync-period=5s", "--pin-dir=/sys/fs/bpf/x",
		},
		"Deployment egressip-controller": {
			"--metrics-secure=false", "--metrics-bind-address=0", "--health-probe-bind-address=:1791",
			"--default-capacity=7", "--find-networks=false", "--include-cidrs=203.0.113.0/24", "--log-format=json", "--v=3", "--leader-election-namespace=" + namespace,
		},
	} {
		got := strings.Join(args(t, all[workload]), " ") + " "
		for _, flag := range want {
			if !strings.Contains(got, flag+" ") {
				t.Errorf("%s has arguments %s; want %s", workload, got, flag)
			}
		}
	}
	for _, bad := range []struct{ set, names string }{
		{"agent.arpProbe=no", "arpProbe"},
		{"agent.arpIgnoreMACs={12:34}", "arpIgnoreMACs"},
		{"backend=ebtables", "backend"},
		{"iptablesBackend=ebtables", "iptablesBackend"},
		{"overlayPort=0", "overlayPort"},
		{"controller.findNetworks=maybe", "findNetworks"},
		{"agent.healthPort=0", "healthPort"},
		{"metrics.bindAddress=localhost", "bindAddress"},
		{"clusterCIDRs={10.0.0.0}", "clusterCIDRs"},
		{"excludeCIDRs={everything}", "excludeCIDRs"},
		{"includeCIDRs={everything}", "includeCIDRs"},
		{"markMask=all", "markMask"},
		{"logFormat=xml", "logFormat"},
		{"egressIPAPI.enabled=maybe", "egressIPAPI"},
		{"typo=1", "typo"},
	} {
		if _, err := render(t, bad.set); err == nil || !strings.Contains(err.Error(), bad.names) {
			t.Errorf("--set %s: %v, want a refusal that names %s", bad.set, err, bad.names)
		}
	}
}

// TestRightsToFindNetworks: the controller may read the objects of others that name networks,
// and nothing else of theirs; and not even that if it must not look for networks.
func TestRightsToFindNetworks(t *testing.T) {
	foreign := []string{"apiextensions.k8s.io", "crd.projectcalico.org", "projectcalico.org", "cilium.io", "config.openshift.io"}
	for find, want := range map[string]int{"true": len(foreign), "false": 0} {
		all, err := render(t, "controller.findNetworks="+find, "egressIPAPI.enabled=false")
		if err != nil {
			t.Fatal(err)
		}
		rules, _, err := unstructured.NestedSlice(all["ClusterRole egressip-controller"], "rules")
		if err != nil {
			t.Fatal(err)
		}
		seen := 0
		for _, rule := range rules {
			text := fmt.Sprint(rule)
			for _, group := range foreign {
				if !strings.Contains(text, " "+group) && !strings.Contains(text, "["+group) {
					continue
				}
				seen++
				if !strings.Contains(text, "verbs:[list watch]") || strings.Contains(text, "*") {
					t.Errorf("the controller may do more than read: %s", text)
				}
			}
		}
		role, ok := all["Role egressip-controller-service"]
		if seen != want || ok != (want > 0) {
			t.Errorf("findNetworks=%s: rights in %d groups of %v, want %d; the Service may be read: %t", find, seen, foreign, want, ok)
		}
		rules, _, err = unstructured.NestedSlice(role, "rules")
		if err != nil || ok && len(rules) != 2 {
			t.Errorf("rights in namespace default: %v, %v", rules, err)
		}
		for _, rule := range rules {
			if text := fmt.Sprint(rule); !strings.Contains(text, "resourceNames:[kubernetes]") || !strings.Contains(text, "verbs:[list watch]") {
				t.Errorf("the controller may do more than read Service kubernetes and its endpoints: %s", text)
			}
		}
	}
}

// TestLint: helm finds nothing wrong, whatever way templates take, and the copies of the definitions are those
// that were generated.
func TestLint(t *testing.T) {
	for name, values := range combinations() {
		arguments := []string{"lint", "--strict", "--kube-version", "1.37.0", chart}
		for _, s := range values {
			arguments = append(arguments, "--set", s)
		}
		if out, err := run(t.Context(), t, "helm", arguments...); err != nil {
			t.Errorf("helm lint with %s: %v\n%s", name, err, out)
		}
	}
	for name, dir := range map[string]string{
		"network.openshift.io_netnamespaces.yaml": "crd", "network.openshift.io_hostsubnets.yaml": "crd", "k8s.ovn.org_egressips.yaml": "egressip",
		"egressip.network.openshift.io_egressippools.yaml": "egressip", "egressip.network.openshift.io_egressiprequests.yaml": "egressip",
	} {
		generated, err := os.ReadFile(filepath.Join("../../config", dir, name))
		if err != nil {
			t.Fatal(err)
		}
		copied, err := os.ReadFile(filepath.Join(chart, "files/crds", name))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(generated, copied) {
			t.Errorf("%s differs between config/%s and the chart: run \"make generate\"", name, dir)
		}
	}
}

// TestMonitor: a PodMonitor finds the ports of both workloads, and brings a token where
// metrics need one.
func TestMonitor(t *testing.T) {
	for secure, want := range map[string]bool{"true": true, "false": false} {
		all, err := render(t, "podMonitor.enabled=true", "metrics.secure="+secure)
		if err != nil {
			t.Fatal(err)
		}
		for _, object := range []string{"ServiceAccount egressip-metrics", "Secret egressip-metrics", "ClusterRoleBinding egressip-metrics", "ClusterRole egressip-metrics-reader"} {
			if _, ok := all[object]; ok != want {
				t.Errorf("metrics.secure=%s: the chart makes %s: %t", secure, object, ok)
			}
		}
		for _, workload := range []string{"DaemonSet egressip-agent", "Deployment egressip-controller"} {
			containers, _, err := unstructured.NestedSlice(all[workload], "spec", "template", "spec", "containers")
			if err != nil || !strings.Contains(fmt.Sprint(containers[0].(map[string]any)["ports"]), "name:metrics") {
				t.Errorf("%s has no port of metrics, %v", workload, err)
			}
		}
	}
}

// TestReader: whoever may read what is guarded may do nothing else; without known clients there is
// nothing to read.
func TestReader(t *testing.T) {
	for set, want := range map[string][]bool{ // the role, the account
		"reader.enabled=true":  {true, true},
		"reader.enabled=false": {true, false},
		"metrics.secure=false": {false, false},
	} {
		all, err := render(t, set)
		if err != nil {
			t.Fatal(err)
		}
		role, hasRole := all["ClusterRole egressip-reader"]
		_, hasAccount := all["ServiceAccount egressip-reader"]
		_, bound := all["ClusterRoleBinding egressip-reader"]
		if hasRole != want[0] || hasAccount != want[1] || bound != want[1] {
			t.Errorf("%s: a role: %t, an account: %t, bound: %t; want %v", set, hasRole, hasAccount, bound, want)
		}
		if rules, _, err := unstructured.NestedSlice(role, "rules"); err != nil || hasRole && (len(rules) != 1 || strings.Contains(fmt.Sprint(rules), "resources:")) || strings.Contains(fmt.Sprint(rules), "*") {
			t.Errorf("%s: the reader may do more than read: %v, %v", set, rules, err)
		}
	}
}

// TestRecordVolume: the record is on a volume of the chart or of the user, which both replicas can have.
func TestRecordVolume(t *testing.T) {
	for _, c := range []struct {
		set    []string
		claims bool
		volume string
		fails  string
	}{
		{nil, false, "", ""},
		{[]string{"controller.record.enabled=true"}, true, "egressip-record", ""},
		{[]string{"controller.record.enabled=true", "controller.record.existingClaim=mine"}, false, "mine", ""},
		{[]string{"controller.record.enabled=true", "controller.record.accessMode=ReadWriteOnce"}, false, "", "controller.replicas=1"},
		{[]string{"controller.record.enabled=true", "controller.record.accessMode=ReadWriteOnce", "controller.replicas=1"}, true, "egressip-record", ""},
		{[]string{"controller.record.enabled=true", "controller.record.accessMode=Any"}, false, "", "accessMode"},
	} {
		all, err := render(t, c.set...)
		if c.fails != "" {
			if err == nil || !strings.Contains(err.Error(), c.fails) {
				t.Errorf("%v: %v, want %q", c.set, err, c.fails)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if _, claims := all["PersistentVolumeClaim egressip-record"]; claims != c.claims {
			t.Errorf("%v: the chart claims a volume: %t", c.set, claims)
		}
		volumes, _, err := unstructured.NestedSlice(all["Deployment egressip-controller"], "spec", "template", "spec", "volumes")
		records := strings.Contains(strings.Join(args(t, all["Deployment egressip-controller"]), " "), "--record-dir=/var/lib/egressip-record --record-max-size=50")
		if err != nil || records != (c.volume != "") || len(volumes) > 0 != (c.volume != "") || !strings.Contains(fmt.Sprint(volumes), c.volume) {
			t.Errorf("%v: volumes %v, it records: %t, %v", c.set, volumes, records, err)
		}
	}
}

// TestAgentIsConfined: the agent's containers are not privileged, and cannot become so.
// TestRightsOfTheChartAreEnough of pkg/dataplane shows that it works so.
func TestAgentIsConfined(t *testing.T) {
	for _, set := range [][]string{nil, {"agent.bootLock.enabled=true", "clusterCIDRs={10.244.0.0/16}"}} {
		all, err := render(t, set...)
		if err != nil {
			t.Fatal(err)
		}
		for _, kind := range []string{"initContainers", "containers"} {
			containers, _, err := unstructured.NestedSlice(all["DaemonSet egressip-agent"], "spec", "template", "spec", kind)
			if err != nil {
				t.Fatal(err)
			}
			for _, container := range containers {
				c, ok := container.(map[string]any)
				if !ok {
					t.Fatalf("container %v", container)
				}
				is, _, err := unstructured.NestedMap(c, "securityContext")
				if err != nil {
					t.Fatal(err)
				}
				drop, _, _ := unstructured.NestedStringSlice(is, "capabilities", "drop")
				if is["privileged"] == true || is["allowPrivilegeEscalation"] != false || is["readOnlyRootFilesystem"] != true || len(drop) != 1 || drop[0] != "ALL" {
					t.Errorf("%s %s: %v", kind, c["name"], is)
				}
				if profile, _, _ := unstructured.NestedString(is, "seccompProfile", "type"); profile != "RuntimeDefault" {
					t.Errorf("%s %s: seccomp profile %q", kind, c["name"], profile)
				}
				mounts, _, _ := unstructured.NestedSlice(c, "volumeMounts")
				for _, m := range mounts {
					if m, ok := m.(map[string]any); ok && m["mountPropagation"] == "Bidirectional" {
						t.Errorf("%s %s: mount %v needs a privileged container", kind, c["name"], m)
					}
				}
			}
		}
	}
}
