package page

import (
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/internal/testenv/objects"
)

// TestHost: a host says what it has, for which namespaces, and what its agent reports.
func TestHost(t *testing.T) {
	t.Parallel()
	h := host("node1", "192.168.7.11", "192.168.7.200", "192.168.7.201", "nonsense")
	h.Status.EgressIPs = h.Status.EgressIPs[:1]
	h.Status.HostIPs = []string{"192.168.7.11", "fd00::11"}
	says(&h, v1.ConditionWarnings, metav1.ConditionTrue, "ReversePathFilter", "rp_filter is 0")
	m := modelOf([]v1.NetNamespace{objects.NetNamespace("shop", 1, "192.168.7.200"), objects.NetNamespace("till", 2, "192.168.7.201")}, []v1.HostSubnet{h})
	got := m.hostNamed(t, "node1")
	if got.Claims != 2 || got.Used != 2 || got.Mode != "manual" || got.Online != yes || strings.Join(got.IPs, " ") != "192.168.7.11 fd00::11" {
		t.Errorf("the host is %+v", got)
	}
	for i, want := range []Claim{
		{IP: "192.168.7.200", Group: "shop", Level: LevelOK, Configured: yes},
		{IP: "192.168.7.201", Group: "till", Level: LevelUnknown, Configured: unknown},
	} {
		if c := got.EgressIPs[i]; c.IP != want.IP || c.Group != want.Group || c.Level != want.Level || c.Configured != want.Configured {
			t.Errorf("egress IP %d is %+v, want %+v", i, c, want)
		}
	}
	issue := hostIssues(got)[0]
	for _, part := range []string{"rp_filter is 0", "192.168.7.201", "nonsense"} {
		if !strings.Contains(issue.Text, part) {
			t.Errorf("%q is not in the issue: %s", part, issue.Text)
		}
	}
}

// TestHostWithoutWord: a host of which nobody has said anything is unknown, and says why.
func TestHostWithoutWord(t *testing.T) {
	t.Parallel()
	m := modelOf(nil, []v1.HostSubnet{objects.HostSubnet("node1", "192.168.7.11")})
	h := m.hostNamed(t, "node1")
	if h.Level != LevelUnknown || h.Online != unknown || len(m.Issues) != 1 || !strings.Contains(m.Issues[0].Text, "has not reported yet") {
		t.Errorf("the host is %s (%s), online %s: %+v", h.Level, h.Summary, h.Online, m.Issues)
	}
}
