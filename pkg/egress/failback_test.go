package egress_test

import (
	"fmt"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// failBack annotates the namespaces so far.
func (g *given) failBack(when string) *given {
	for i := range g.NetNamespaces {
		metav1.SetMetaDataAnnotation(&g.NetNamespaces[i].ObjectMeta, v1.AnnotationFailBack, when)
	}
	return g
}

// used is what the status of the first namespace says.
func (g *given) used(ips ...string) *given {
	status := &g.NetNamespaces[0].Status
	for i, ip := range ips {
		a := v1.Assignment{IP: ip, Host: "w9"} // where it was does not matter
		if i == 0 {
			status.Active = &a
		}
		status.ActiveIPs = append(status.ActiveIPs, a)
	}
	return g
}

func activeIPs(r egress.Resolution) string {
	var ips []string
	for _, a := range r.Groups[0].Active {
		ips = append(ips, a.IP.String())
	}
	return strings.Join(ips, " ")
}

// A namespace that does not fail back keeps what its status says that it uses, as long as that is
// as good as any other of its egress IPs.
//
// Mutants killed: namespaces-always-fail-back, kept-though-it-is-worse, balanced-keeps-one.
func TestNamespaceKeepsItsEgressIP(t *testing.T) {
	const first, second, third, six, six2 = "192.168.7.200", "192.168.7.201", "192.168.7.202", "fd00:7::200", "fd00:7::201"
	shop := func() *given {
		return new(given).namespace("shop", first, second).host("w0", first).host("w1", second).failBack(v1.FailBackNever)
	}
	balanced := shop().used(second).balanced().failBack(v1.FailBackNever)
	for name, c := range map[string]struct {
		given *given
		want  string
	}{
		"nothing used yet":                 {shop(), first},
		"the second one is used":           {shop().used(second), second},
		"its host is offline":              {shop().used(second).offline("w1"), first},
		"its host is silent":               {shop().used(second).doubtful("w1"), first},
		"the first one is used and silent": {shop().used(first).doubtful("w0"), second},
		"its host is being evacuated":      {shop().used(second).evacuating("w1"), first},
		"another machine has it":           {shop().used(second).reports("w1", second, egress.ReasonAddressInUse), first},
		"it is used, and all are silent":   {shop().used(second).doubtful("w0").doubtful("w1"), second},
		"it is not requested any more":     {shop().used(third), first},
		"it is no address":                 {shop().used("shop"), first},
		"it fails back":                    {shop().used(second).failBack(v1.FailBackAlways), first},
		"it says nothing about that":       {shop().used(second).failBack(""), first},
		"it says what nobody knows":        {shop().used(second).failBack("sometimes"), first},
		"it is balanced":                   {balanced, first + " " + second},
		"each family by itself": {
			new(given).namespace("shop", first, second, six, six2).host("w0", first, six).host("w1", second, six2).ipv6().failBack(v1.FailBackNever).used(first, six2),
			first + " " + six2,
		},
	} {
		t.Run(name, func(t *testing.T) {
			cluster, problems := egress.Snapshot(c.given.Objects)
			if got := activeIPs(egress.Resolve(cluster)); got != c.want {
				t.Errorf("used are %s, want %s", got, c.want)
			}
			if strange := name == "it says what nobody knows"; strange != (len(problems) > 0) {
				t.Errorf("problems %v", problems)
			}
		})
	}
	cluster, _ := egress.Snapshot(shop().used(second).Objects)
	r := egress.Resolve(cluster).Groups[0]
	kept := r.Requests[0]
	if kept.State != egress.Standby || kept.Reason != egress.ReasonKept || !strings.Contains(kept.Message, "namespace shop keeps the egress IP that it uses") {
		t.Errorf("the first one: %+v", kept)
	}
	if r.Ready == egress.ReadyFalse || r.Requests[1].State != egress.Active {
		t.Errorf("the second one: %+v", r)
	}
}

// What a namespace keeps follows its status, also where the last decision is remembered.
//
// Mutant killed: what-is-kept-is-remembered.
func TestWhatIsKeptIsReadAgain(t *testing.T) {
	const first, second = "192.168.7.200", "192.168.7.201"
	g := new(given).namespace("shop", first, second).host("w0", first).host("w1", second).failBack(v1.FailBackNever)
	g.NetNamespaces[0].UID = "uid"
	var memo egress.Memo
	for i, ip := range []string{first, second, first} {
		g.used(ip)
		g.NetNamespaces[0].ResourceVersion = fmt.Sprint(i + 1)
		g.NetNamespaces[0].Status.ActiveIPs = nil
		if got := activeIPs(memo.Decide(g.Objects).Resolution); got != ip {
			t.Errorf("used are %s, want %s", got, ip)
		}
	}
}

// However hosts come and go, a namespace that does not fail back uses another egress IP only if the
// one that it used is worse, and all hosts' pods follow its status.
//
// Mutants killed: namespaces-always-fail-back.
func TestPropertyOneKeepsWhatWorks(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ips := []string{"192.168.7.200", "192.168.7.201", "192.168.7.202"}
		g := new(given).namespace("shop", ips...)
		for i, ip := range ips {
			g.host(fmt.Sprintf("w%d", i), ip)
		}
		g.failBack(v1.FailBackNever)
		for range rapid.IntRange(1, 8).Draw(t, "changes") {
			for i := range ips {
				g.edit(fmt.Sprintf("w%d", i), func(h *v1.HostSubnet) {
					agentReports(h)
					state := rapid.SampledFrom([]metav1.ConditionStatus{metav1.ConditionTrue, metav1.ConditionTrue, metav1.ConditionFalse, metav1.ConditionUnknown}).Draw(t, "online")
					h.Status.Conditions = append(h.Status.Conditions, metav1.Condition{Type: v1.ConditionOnline, Status: state})
				})
			}
			cluster, _ := egress.Snapshot(g.Objects)
			n := egress.Resolve(cluster).Groups[0]
			status := &g.NetNamespaces[0].Status
			for _, request := range n.Requests {
				if status.Active != nil && request.IP == status.Active.IP && request.State == egress.Standby {
					t.Fatalf("%s was used and can be, and %s is: %+v", request.IP, n.Active[0].IP, request)
				}
			}
			status.Active = nil
			if len(n.Active) > 0 {
				status.Active = &v1.Assignment{IP: n.Active[0].IP.String(), Host: n.Active[0].Host}
			}
		}
	})
}
