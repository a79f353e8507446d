package controllers

import (
	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/types"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// activity is a change of what traffic leaves with: an egress IP is used by a group from some
// host, where it was not before.
type activity struct {
	egressIP string
	// from and to are the hosts that it is used on; empty for none.
	from, to string
	// reason is that of the status after the change.
	reason string
}

// activities are the changes of what is used between two statuses, in order of the list, those of
// egress IPs that are not requested any more last.
func activities(before, after v1.NetNamespaceStatus) (changes []activity) {
	was, is := byIP(before.EgressIPs), byIP(after.EgressIPs)
	for _, now := range after.EgressIPs {
		if from, to := usedOn(was[now.IP]), usedOn(now); from != to {
			changes = append(changes, activity{egressIP: now.IP, from: from, to: to, reason: now.Reason})
		}
	}
	for _, old := range before.EgressIPs {
		if _, still := is[old.IP]; !still && usedOn(old) != "" {
			changes = append(changes, activity{egressIP: old.IP, from: old.Host, reason: string(egress.ReasonNotRequested)})
		}
	}
	return changes
}

// usedOn is the host from which traffic leaves with a requested egress IP; empty if none does.
func usedOn(r v1.RequestStatus) string {
	if r.State == v1.StateActive {
		return r.Host
	}
	return ""
}

// logUse logs a change of what a group uses, so that the log says which object's traffic had an
// egress IP, from which host, and when. netID is 0 if it is not known.
func logUse(log logr.Logger, group string, uid types.UID, netID uint32, a activity) {
	log.Info("use of an egress IP changed", "egressIP", a.egressIP, "group", group, "uid", string(uid), "netid", netID,
		"fromHost", a.from, "toHost", a.to, "reason", a.reason)
}
