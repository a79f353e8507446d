package dataplane

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/iptables"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/warning"
)

// Others that are found before our rules in a chain oustedOften times within oustedWithin
// come again. Once or twice is a restart: of kube-proxy, Docker, a firewall.
const (
	oustedOften  = 3
	oustedWithin = 10 * time.Minute
)

// oustings are, for each base chain of iptables, the last moments at which a pass found rules
// of others before ours there, and had to put ours first again; not more than oustedOften.
// The zero value has none.
type oustings struct{ chains map[string]ousting }

type ousting struct {
	at   []time.Duration
	rule string
}

// note adds what a transaction of a command, such as iptables-nft, is about to repair.
func (o *oustings) note(command string, t iptables.Transaction, now time.Duration) {
	for _, found := range t.Ousted {
		if o.chains == nil {
			o.chains = map[string]ousting{}
		}
		name := fmt.Sprintf("%s, table %s, chain %s", command, t.Table, found.Chain)
		at := slices.Concat(o.chains[name].at, []time.Duration{now})
		o.chains[name] = ousting{at: at[max(0, len(at)-oustedOften):], rule: found.Rule}
	}
}

// often lists the chains of which that is true oustedOften times within the last
// oustedWithin, in order.
func (o *oustings) often(now time.Duration) (list []warning.Ousted) {
	for _, name := range slices.Sorted(maps.Keys(o.chains)) {
		if c := o.chains[name]; len(c.at) >= oustedOften && now-c.at[0] < oustedWithin {
			list = append(list, warning.Ousted{Chain: name, Rule: c.rule})
		}
	}
	return list
}
