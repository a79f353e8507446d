package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	ovnv1 "github.com/egressip-operator/egressip-operator/api/ovn/v1"
	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/internal/testenv/objects"
)

// exits runs the plugin as the administrator, and returns its output and exit code.
func (s *server) exits(t *testing.T, in string, args ...string) (out string, code int) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd := rootCommand(&stdout, &stderr)
	cmd.SetIn(strings.NewReader(in))
	cmd.SetArgs(append(args, "--kubeconfig", s.kubeconfig))
	code = exitCode(cmd.ExecuteContext(t.Context()), &stderr)
	return stdout.String() + stderr.String(), code
}

// TestPlan: what is said beforehand, on a real API server, and the exit codes. Nothing is changed.
//
// Mutants killed: plan-exits-quietly, plan-overwrites-objects, plan-plays-foreign-egressips.
func TestPlan(t *testing.T) {
	t.Parallel()
	s := startServer(t, "crd", "egressip")
	s.cluster(t)
	range1 := objects.ReportedHostSubnet("node3", "10.1.8.13")
	range1.EgressCIDRs = []string{"10.1.8.240/28"}
	range2 := objects.ReportedHostSubnet("node4", "10.1.8.14")
	range2.EgressCIDRs = range1.EgressCIDRs
	auto := objects.NetNamespace("auto", 19, "10.1.8.241")
	range1.EgressIPs = []string{"10.1.8.241"}
	objects.AgentReports(&range1)
	s.namespaces(t, "auto")
	s.create(t, &range1, &range2, &auto, objects.Node("node3", corev1.ConditionTrue), objects.Node("node4", corev1.ConditionTrue))
	s.runs(t, "shop", "web", "node1", "10.244.1.5", nil)
	annotated := strings.Join([]string{
		`{"apiVersion": "network.openshift.io/v1", "kind": "NetNamespace", "metadata": {"name": "shop", "annotations": {`,
		`"`, v1.AnnotationMode, `": "balanced"}}}`,
	}, "")
	for name, c := range map[string]struct {
		in   string
		args []string
		code int
		want []string
		not  []string
	}{
		"a host with a namespace of its own": {
			"",
			[]string{"--without", "node1"},
			3,
			[]string{"10.1.8.200 shop node1 Active node1 HostOffline HostOffline\n", "shop 10.1.8.200@node1 - Dropped IPv4, Source\n", "\nshop: Traffic to the outside is dropped.", "groups whose traffic changes: 1, dropped: 1\n"},
			[]string{"test", "auto"},
		},
		"a host with another one": {
			"",
			[]string{"--without", "node3"},
			2,
			[]string{"10.1.8.241 auto node3 Active node4 Active Assigned\n", "auto 10.1.8.241@node3 10.1.8.241@node4 Moved, Exposed to node4\n", "dropped: 0\n"},
			nil,
		},
		"an evacuation":                        {"", []string{"--evacuate", "node3"}, 2, []string{"10.1.8.241 auto node3 Active node4 Active Assigned\n", "auto 10.1.8.241@node3 10.1.8.241@node4 Moved, Exposed to node4\n"}, nil},
		"a host that does little":              {"", []string{"--without", "node2"}, 0, []string{"No egress IP moves.\n", "The traffic of no namespace and of no EgressIP changes."}, nil},
		"both":                                 {"", []string{"--without", "node3", "--without", "node4"}, 3, []string{"auto 10.1.8.241@node3 - Dropped IPv4"}, nil},
		"a manifest that changes no egress IP": {annotated, []string{"-f", "-"}, 0, []string{"No egress IP moves."}, nil},
		"a manifest that serves a namespace": {
			`{"apiVersion": "network.openshift.io/v1", "kind": "HostSubnet", "metadata": {"name": "node2"}, "egressIPs": ["10.1.8.201"]}`,
			[]string{"-f", "-"},
			2,
			[]string{"10.1.8.201 test - Unassigned node2 Active Assigned\n", "test - 10.1.8.201@node2 Served IPv4, Source"},
			nil,
		},
		"a manifest of a new namespace": {
			`{"apiVersion": "network.openshift.io/v1", "kind": "NetNamespace", "metadata": {"name": "fresh"}, "egressIPs": ["10.1.8.242", "10.1.8.999"]}`,
			[]string{"-f", "-"},
			2,
			[]string{"10.1.8.242 fresh - - node4 Active Assigned\n", `NetNamespace fresh, egressIPs: "10.1.8.999" is not a valid egress IP`},
			nil,
		},
		"an EgressIP and a label of a Node": {
			`{"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node2", "labels": {"k8s.ovn.org/egress-assignable": ""}}}
---
{"apiVersion": "k8s.ovn.org/v1", "kind": "EgressIP", "metadata": {"name": "web"}, "spec": {"egressIPs": ["10.1.8.230"], "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "shop"}}}}
---
{"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "other"}}
`,
			[]string{"-f", "-"},
			2,
			[]string{"10.1.8.230 EgressIP/web - - node2 Active Assigned\n", "1 pods, such as shop/web, leave as EgressIP web says, and not as namespace shop does.", "Ignored, as objects of other kinds: Secret (1)."},
			nil,
		},
		"an unknown host": {"", []string{"--without", "node9"}, 1, []string{`error: there is no HostSubnet "node9": the hosts are node1, node2, node3, node4`}, nil},
		"nothing":         {"", nil, 1, []string{"error: say what would change"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			out, code := s.exits(t, c.in, append([]string{"plan"}, c.args...)...)
			if code != c.code {
				t.Errorf("exit code %d, want %d", code, c.code)
			}
			check(t, squeeze(out), c.want, c.not)
		})
	}
	file := filepath.Join(t.TempDir(), "n.yaml")
	if err := os.WriteFile(file, []byte("{apiVersion: network.openshift.io/v1, kind: NetNamespace, metadata: {name: shop}, egressIPs: []}"), 0o600); err != nil {
		t.Fatal(err)
	}
	out, code := s.exits(t, "", "plan", "-f", file, "-o", "json")
	var f forecast
	if err := json.Unmarshal([]byte(out), &f); err != nil || code != exitChanges || f.Result != resultChanges || len(f.Groups) != 1 || len(f.Groups[0].After) != 0 {
		t.Errorf("%v, exit code %d: %s", err, code, out)
	}
	var stored v1.NetNamespace
	if err := s.Get(t.Context(), clientKey("shop"), &stored); err != nil || len(stored.EgressIPs) != 1 {
		t.Errorf("%v: shop requests %v now", err, stored.EgressIPs)
	}
	// An apply removes what the last one set, and leaves alone what others set.
	stored.Annotations = map[string]string{corev1.LastAppliedConfigAnnotation: `{"apiVersion": "network.openshift.io/v1", "kind": "NetNamespace", "metadata": {"name": "shop"}, "egressIPs": ["10.1.8.200"]}`}
	if err := s.Update(t.Context(), &stored); err != nil {
		t.Fatal(err)
	}
	if out, code = s.exits(t, annotated, "plan", "-f", "-"); code != exitChanges {
		t.Errorf("exit code %d of what removes egressIPs: %s", code, out)
	}
	crd := definition(ovnv1.CRDName)
	if err := s.Patch(t.Context(), crd, mergePatch(`{"metadata": {"annotations": null}}`)); err != nil {
		t.Fatal(err)
	}
	if out, code = s.exits(t, `{"apiVersion": "k8s.ovn.org/v1", "kind": "EgressIP", "metadata": {"name": "web"}}`, "plan", "-f", "-"); code != 1 || !strings.Contains(out, "does not serve the EgressIPs") {
		t.Errorf("exit code %d of another software's EgressIP: %s", code, out)
	}
}
