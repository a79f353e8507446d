package live

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
)

// TestHostsAreReadAsWritten: what an agent says arrives at the plugin, and what was not asked for is
// not there.
func TestHostsAreReadAsWritten(t *testing.T) {
	sender, egress, _, _ := asMeant()
	for _, host := range []Host{sender, egress, {Backend: "iptables", Unread: []string{"guards: EPERM"}}} {
		text, err := json.Marshal(host)
		if err != nil {
			t.Fatal(err)
		}
		var got Host
		if err := json.Unmarshal(text, &got); err != nil || !reflect.DeepEqual(got, host) {
			t.Errorf("%s became %+v, %v", text, got, err)
		}
		if host.Egress == nil && strings.Contains(string(text), "egress\"") {
			t.Errorf("what was not asked for is in %s", text)
		}
	}
}
