package main

import (
	"encoding/json"
	"testing"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
)

// TestStatusOnAnAPIServer: each format of status and hosts, with who wrote what and since when, as the
// API server has it.
//
// Mutants killed: status-hides-writers, status-believes-status.
func TestStatusOnAnAPIServer(t *testing.T) {
	t.Parallel()
	s := startServer(t, "crd")
	s.cluster(t)
	writes := func(object client.Object, manager string) {
		t.Helper()
		if err := s.Status().Patch(t.Context(), object, client.Merge, client.FieldOwner(manager)); err != nil {
			t.Fatal(err)
		}
	}
	condition := func(name, status, reason string) []metav1.Condition {
		return []metav1.Condition{{Type: name, Status: metav1.ConditionStatus(status), Reason: reason, LastTransitionTime: metav1.Unix(1e9, 0)}}
	}
	var host v1.HostSubnet
	if err := s.Get(t.Context(), clientKey("node2"), &host); err != nil {
		t.Fatal(err)
	}
	meta.SetStatusCondition(&host.Status.Conditions, metav1.Condition{Type: v1.ConditionOnline, Status: metav1.ConditionFalse, Reason: "Silent", LastTransitionTime: metav1.Unix(1e9, 0)})
	writes(&host, "egressip-controller")
	var shop v1.NetNamespace
	if err := s.Get(t.Context(), clientKey("shop"), &shop); err != nil {
		t.Fatal(err)
	}
	shop.Status.Conditions = condition(v1.ConditionEgressReady, "False", "Dropped")
	writes(&shop, "egressip-controller")

	const since = "2001-09-09T01:46:40Z"
	check(t, squeeze(s.says(t, "status")), []string{"node1 10.1.8.11 manual yes Ready 10.1.8.200(Active) Assigned\n", "node2 10.1.8.12 manual no Ready - ", "dropped: 1 (see"}, []string{since})
	check(t, squeeze(s.says(t, "hosts", "-o", "wide")), []string{"ONLINE SINCE BY AGENT SINCE BY LAST REPORT VERSION KERNEL RULES\n", since + " egressip-controller ", " test - -\n"}, []string{"Namespaces"})
	check(t, squeeze(s.says(t, "hosts", "node1")), []string{"node1 10.1.8.11"}, []string{"node2"})
	check(t, squeeze(s.says(t, "status", "shop", "-o", "wide")), []string{
		"GROUP NETID MODE READY REASON ACTIVE SINCE BY LAST REPORT\n",
		"shop 17 ordered True Assigned 10.1.8.200@node1 " + since + " egressip-controller ", "\nshop: ",
		"Its status still says False (Dropped), by egressip-controller: the controller has not decided on these objects yet, or does not run.",
	}, nil)
	var report statusReport
	if err := json.Unmarshal([]byte(s.says(t, "hosts", "node2", "-o", "json")), &report); err != nil {
		t.Fatal(err)
	}
	if len(report.Hosts) != 1 || report.Hosts[0].Online.Status != "False" || report.Hosts[0].Online.Since != since || report.Hosts[0].Online.By != "egressip-controller" {
		t.Errorf("%+v", report.Hosts)
	}
	check(t, s.says(t, "status", "-o", "yaml"), []string{"counts:\n", "  dropped: 1\n", "host: node1\n", "configured: \"yes\"\n"}, nil)
	for _, args := range [][]string{{"status", "shpo"}, {"hosts", "node9"}, {"hosts", "-o", "xml"}} {
		if out, code := s.exits(t, "", args...); code != 1 {
			t.Errorf("%v: exit code %d: %s", args, code, out)
		}
	}
}
