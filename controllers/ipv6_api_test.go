package controllers_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/controllers"
	"github.com/egressip-operator/egressip-operator/internal/testenv/objects"
)

// TestEgressIPsOfIPv6: automatic hosts are given egress IPs of IPv6 by what their agents report,
// whatever form they are written in, and status shows those of both families. A host whose
// agent does not serve IPv6 gets none, and one that claims it says why.
func TestEgressIPsOfIPv6(t *testing.T) {
	a := startAPI(t)
	a.control(t, controllers.Options{})
	const range6 = "2001:db8:7::/64"
	for i, name := range []string{"node1", "node2"} {
		a.node(t, name, fmt.Sprintf("10.254.%d.0/24", i+1), fmt.Sprintf("192.168.7.1%d", i+1), fmt.Sprintf("2001:db8:7::1%d", i+1))
		a.awaitHost(t, name, func(*v1.HostSubnet) string { return "" })
		a.ranges(t, name, "192.168.7.128/25", range6)
	}
	report := func(name, ip string, families ...any) {
		if err := a.report(t.Context(), name, map[string]any{
			"version": objects.AgentVersion, "uplinkCIDR": ip + "/32", "families": families, "uplinkNetworks": []any{"2001:db8:7::/64"},
		}); err != nil {
			t.Fatal(err)
		}
	}
	report("node1", "192.168.7.11", v1.FamilyIPv4)
	report("node2", "192.168.7.12", v1.FamilyIPv4, v1.FamilyIPv6)
	a.namespace(t, "shop")
	a.awaitNamespace(t, "shop", func(*v1.NetNamespace) string { return "" })
	a.request(t, "shop", "2001:0DB8:7:0::200", "192.168.7.200")
	const ip6 = "2001:db8:7::200"
	a.awaitHost(t, "node2", func(h *v1.HostSubnet) string {
		if !slices.Contains(h.EgressIPs, ip6) {
			return fmt.Sprintf("egressIPs are %q", h.EgressIPs)
		}
		return ""
	})
	n := a.awaitNamespace(t, "shop", func(n *v1.NetNamespace) string {
		if len(n.Status.ActiveIPs) != 2 || n.Status.Active == nil {
			return fmt.Sprintf("active are %v", n.Status.ActiveIPs)
		}
		return ""
	})
	active := n.Status.ActiveIPs
	if active[0].IP != "192.168.7.200" || active[0].Family != v1.FamilyIPv4 ||
		active[1] != (v1.Assignment{IP: ip6, Host: "node2", Family: v1.FamilyIPv6}) || *n.Status.Active != (v1.Assignment{IP: active[0].IP, Host: active[0].Host}) {
		t.Errorf("active are %v, and first %v", active, n.Status.Active)
	}
	wide := a.row(t, "netnamespaces", "shop")
	for column, want := range map[string]string{
		"Active IP": "192.168.7.200", "Host": active[0].Host, "Active IPv6": ip6, "IPv6 Host": "node2",
	} {
		if wide[column] != want {
			t.Errorf("column %s is %v, want %s", column, wide[column], want)
		}
	}
	if requests := n.Status.EgressIPs; requests[0].IP != ip6 || requests[0].State != v1.StateActive {
		t.Errorf("requests are %v", requests)
	}
	// Its agent takes it back: no host can have the address, and none keeps it.
	report("node2", "192.168.7.12", v1.FamilyIPv4)
	a.awaitNamespace(t, "shop", func(n *v1.NetNamespace) string {
		if len(n.Status.EgressIPs) != 2 || n.Status.EgressIPs[0].State != v1.StateUnassigned || n.Status.EgressIPs[0].Reason != "NoEligibleHost" || len(n.Status.ActiveIPs) != 1 {
			return fmt.Sprintf("requests are %+v, active %v", n.Status.EgressIPs, n.Status.ActiveIPs)
		}
		return ""
	})
	a.ranges(t, "node1")
	a.claim(t, "node1", ip6)
	a.awaitHost(t, "node1", func(h *v1.HostSubnet) string {
		for _, c := range h.Status.Conditions {
			if c.Type == v1.ConditionEgressReady && c.Reason == "FamilyNotServed" {
				return ""
			}
		}
		return fmt.Sprintf("conditions are %+v", h.Status.Conditions)
	})
}

// TestColumnsOfBothFamilies: "kubectl get hostsubnets -o wide" shows a node's addresses and pod
// networks of both families, and which families of egress IPs it can have.
func TestColumnsOfBothFamilies(t *testing.T) {
	a := startAPI(t)
	a.control(t, controllers.Options{})
	a.node(t, "node1", "10.254.1.0/24", "192.168.7.11", "2001:db8:7::11")
	a.awaitHost(t, "node1", func(*v1.HostSubnet) string { return "" })
	if err := a.report(t.Context(), "node1", map[string]any{
		"version": objects.AgentVersion, "uplinkCIDR": "192.168.7.11/24", "families": []any{v1.FamilyIPv4, v1.FamilyIPv6},
	}); err != nil {
		t.Fatal(err)
	}
	a.awaitHost(t, "node1", func(h *v1.HostSubnet) string {
		if len(h.Status.HostIPs) != 2 || len(h.Status.IPv6Networks) == 0 || h.Status.Agent == nil || len(h.Status.Agent.Families) != 2 {
			return fmt.Sprintf("status is %+v", h.Status)
		}
		return ""
	})
	wide := a.row(t, "hostsubnets", "node1")
	for column, want := range map[string]string{
		"Host IP": "192.168.7.11", "Subnet": "10.254.1.0/24",
		"Host IPs": `["192.168.7.11","2001:db8:7::11"]`, "Families": `["IPv4","IPv6"]`, "IPv6 Networks": `["2001:db8:7::11/128"]`,
	} {
		if wide[column] != want {
			t.Errorf("column %s is %v, want %s", column, wide[column], want)
		}
	}
}

// row is what the API server has kubectl print of one of our objects, by column.
func (a *api) row(t *testing.T, resource, name string) map[string]any {
	t.Helper()
	return a.rowOf(t, v1.GroupVersion(), resource, name)
}

// rowOf is row for any group.
func (a *api) rowOf(t *testing.T, group schema.GroupVersion, resource, name string) map[string]any {
	t.Helper()
	c, err := rest.HTTPClientFor(a.cfg)
	if err != nil {
		t.Fatal(err)
	}
	url := strings.TrimSuffix(a.cfg.Host, "/") + "/apis/" + group.String() + "/" + resource + "/" + name
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io")
	answer, err := c.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	var table metav1.Table
	if err := json.NewDecoder(answer.Body).Decode(&table); err != nil {
		t.Fatalf("%s: %v", answer.Status, err)
	}
	if len(table.Rows) != 1 {
		t.Fatalf("%s: %d rows of %s", answer.Status, len(table.Rows), name)
	}
	cells := map[string]any{}
	for i, column := range table.ColumnDefinitions {
		cells[column.Name] = table.Rows[0].Cells[i]
	}
	return cells
}
