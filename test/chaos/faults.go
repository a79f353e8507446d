package main

import (
	"context"
	"time"
)

// kind is a kind of fault.
type kind struct {
	name string
	// weight is how often it is drawn, against the others.
	weight int
	// prepare draws what is broken.
	prepare func(*chaos) fault
	// within bounds the outage, where a longer one is a defect whatever the machine;
	// 0 for no bound, where a fault may leave no host that can take over.
	within time.Duration
}

// fault is one that is about to be made.
type fault struct {
	what string
	// broken are nodes whose own pods are not expected to get through.
	broken []string
	// lasts: the outage may last as long as the fault, whatever bounds those of its kind.
	lasts bool
	// before makes what the fault needs, and is no part of it; may be nil.
	before func(context.Context) error
	begin  func(context.Context) error
	// end undoes it; nil if it ends by itself.
	end func(context.Context) error
}

func kinds() []kind {
	return append(controlPlaneKinds(), []kind{
		{name: "power lost", weight: 4, prepare: (*chaos).powerLost, within: movedWithin},
		{name: "reboot with old addresses", weight: 2, prepare: (*chaos).rebootWithAddresses},
		{name: "cable pulled", weight: 3, prepare: (*chaos).cablePulled},
		{name: "one direction cut", weight: 3, prepare: (*chaos).oneDirection},
		{name: "overlay closed", weight: 3, prepare: (*chaos).overlayClosed, within: movedWithin},
		{name: "carrier flaps", weight: 2, prepare: (*chaos).carrierFlaps},
		{name: "host's address removed", weight: 2, prepare: (*chaos).addressRemoved, within: movedWithin},
		{name: "egress IP taken", weight: 2, prepare: (*chaos).addressTaken, within: movedWithin},
		{name: "foreign source NAT", weight: 2, prepare: (*chaos).foreignNAT, within: repairedWithin},
		{name: "two nodes partitioned", weight: 3, prepare: (*chaos).partitioned},
		{name: "agents killed", weight: 3, prepare: (*chaos).agentsKilled, within: repairedWithin},
		{name: "an agent crash-loops", weight: 1, prepare: (*chaos).agentCrashLoops, within: repairedWithin},
		{name: "API server and etcd stopped", weight: 2, prepare: (*chaos).apiStopped, within: repairedWithin},
		{name: "leader killed", weight: 2, prepare: (*chaos).leaderKilled, within: repairedWithin},
		{name: "egress IP re-assigned", weight: 3, prepare: (*chaos).reassigned},
		{name: "claims swapped", weight: 2, prepare: (*chaos).claimsSwapped, within: evacuatedWithin},
		{name: "rules flushed", weight: 3, prepare: (*chaos).rulesFlushed, within: repairedWithin},
		{name: "ruleset reloaded", weight: 1, prepare: (*chaos).rulesetReloaded, within: repairedWithin},
		{name: "label of a Node moved", weight: 2, prepare: (*chaos).labelMoved, within: evacuatedWithin},
		{name: "another EgressIP comes first", weight: 2, prepare: (*chaos).selectedByAnother, within: evacuatedWithin},
		{name: "pods churned", weight: 3, prepare: (*chaos).podsChurned, within: repairedWithin},
		{name: "node evacuated", weight: 1, prepare: (*chaos).evacuated, within: evacuatedWithin},
	}...)
}

const apiStoppedAfterCuts = "API server stopped after cuts"

// scripted are the kinds that run only when they are named.
func scripted() []kind {
	return []kind{
		// It says nothing of outages: the pods get no processor time either.
		{name: "processors busy", weight: 1, prepare: (*chaos).processorsBusy},
		{name: apiStoppedAfterCuts, weight: 1, prepare: (*chaos).apiStoppedAfterCuts, within: 1500 * time.Millisecond},
	}
}

func (c *chaos) node() string { return c.Nodes()[c.random.IntN(len(c.Nodes()))] }
