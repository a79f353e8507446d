package egress_test

import (
	"strings"
	"testing"

	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// The key words of OpenShift SDN's log lines stay, for runbooks that look for
// them.
func TestMessagesKeepTheKnownWords(t *testing.T) {
	for want, g := range map[string]*given{
		"Multiple nodes (w0, w1) claiming EgressIP 192.168.7.200": new(given).
			namespace("red", "192.168.7.200").host("w0", "192.168.7.200").host("w1", "192.168.7.200"),
		"Multiple namespaces (blue, red) claiming EgressIP 192.168.7.200": new(given).
			namespace("red", "192.168.7.200").namespace("blue", "192.168.7.200").host("w0", "192.168.7.200"),
		"Multiple EgressIPs (192.168.7.200, 192.168.7.201) for namespace red (netid 1001) on node w0": new(given).
			namespace("red", "192.168.7.200", "192.168.7.201").host("w0", "192.168.7.200", "192.168.7.201"),
	} {
		t.Run(want, func(t *testing.T) {
			cluster, _ := egress.Snapshot(g.Objects)
			resolution := egress.Resolve(cluster)
			for _, n := range resolution.Groups {
				if !strings.Contains(n.Message, want) {
					t.Errorf("%s: %q", n.Name, n.Message)
				}
				for _, r := range n.Requests {
					if !strings.Contains(r.Message, want) || r.State != egress.Conflict {
						t.Errorf("%s, %s: %s, %q", n.Name, r.IP, r.State, r.Message)
					}
				}
			}
			for _, h := range resolution.Hosts {
				if h.Ready || !strings.Contains(h.Message, want) {
					t.Errorf("%s: %t, %q", h.Name, h.Ready, h.Message)
				}
			}
		})
	}
}

func TestConflictAmongThousandsFitsIntoAMessage(t *testing.T) {
	g := new(given).host("w0", "192.168.7.200")
	for i := range 5000 {
		g.namespace(strings.Repeat("n", 1+i%60)+string(rune('a'+i%26)), "192.168.7.200")
	}
	cluster, _ := egress.Snapshot(g.Objects)
	if message := egress.Resolve(cluster).Groups[0].Message; len(message) > 1500 {
		t.Errorf("the message has %d characters", len(message))
	}
}
