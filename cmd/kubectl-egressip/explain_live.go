package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
	"github.com/egressip-operator/egressip-operator/pkg/live"
)

// livePath is where agents answer what their kernels have.
const livePath = "/live"

// ask asks the agent of a node for what it serves under a path with a query.
type ask func(ctx context.Context, node, path string) ([]byte, error)

// askAgents asks through the API server.
func askAgents(c client.Reader, r *reacher) ask {
	return func(ctx context.Context, node, path string) ([]byte, error) {
		pod, err := agentOn(ctx, c, node)
		if err != nil {
			return nil, err
		}
		return r.get(ctx, pod, path)
	}
}

// agentOn finds the pod of the agent on a node.
func agentOn(ctx context.Context, c client.Reader, node string) (*corev1.Pod, error) {
	var pods corev1.PodList
	if err := c.List(ctx, &pods, client.MatchingLabels{labelName: ourName, labelComponent: componentAgent}); err != nil {
		return nil, fmt.Errorf("look for the agent of node %s: %w", node, err)
	}
	for i := range pods.Items {
		if p := &pods.Items[i]; p.Spec.NodeName == node && p.DeletionTimestamp == nil && p.Status.Phase == corev1.PodRunning {
			return p, nil
		}
	}
	return nil, fmt.Errorf("no agent runs on node %s: see the pods of DaemonSet egressip-agent", node)
}

// question is what one host is asked, and what it should have.
type question struct {
	node  string
	query live.Query
	want  live.Want
}

// questions are those about the packets of one of a pod's addresses.
func questions(v *nodeView, t *egress.Trace, to netip.Addr) []question {
	if !to.IsValid() || egress.FamilyOf(to) != egress.FamilyOf(t.Pod.IP) {
		to = live.Somewhere(t.Pod.IP)
	}
	d := t.Toward(to, nil)
	own := question{
		node: v.node, query: live.Query{Pod: t.Pod.IP, To: to, Sender: true},
		want: live.Want{Host: v.node},
	}
	if t.PathKnown {
		own.want.Sender = &live.WantSender{
			Kind: kindOf(t.Path.Kind), Source: t.Path.EgressIP, NetID: t.Path.NetID, Via: t.Path.Via,
			Inside: d.Network.IsValid(), Past: d.Excluded.IsValid(),
		}
		if t.Path.Kind != egress.PathNode {
			own.want.Sender.Excluded = slices.DeleteFunc(slices.Clone(t.Path.Excluded), func(p netip.Prefix) bool { return egress.FamilyOf(p.Addr()) != egress.FamilyOf(t.Pod.IP) })
		}
	}
	if t.Path.Kind == egress.PathRemote {
		own.query.Via = t.Path.Via[:min(len(t.Path.Via), live.MaxVia)]
	}
	list := []question{own}
	for _, hop := range t.Hops {
		want := &live.WantEgress{EgressIP: hop.Source, Interface: interfaceOf(v.HostSubnets, hop), NetID: t.Path.NetID, Inside: d.Network.IsValid()}
		if hop.Local {
			list[0].query.EgressIP, list[0].query.NetID, list[0].want.Egress = hop.Source, t.Path.NetID, want
			continue
		}
		want.From = t.Decided.Plan.HostIP
		list = append(list, question{
			node: hop.Host, query: live.Query{Pod: t.Pod.IP, To: to, EgressIP: hop.Source, NetID: t.Path.NetID, From: want.From},
			want: live.Want{Host: hop.Host, Egress: want},
		})
	}
	return list
}

// interfaceOf is the interface of an egress IP, if that is not the uplink.
func interfaceOf(hosts []v1.HostSubnet, hop egress.Hop) string {
	host := hostSubnetOf(hosts, hop.Host)
	if host == nil {
		return ""
	}
	for _, claim := range host.Status.EgressIPs {
		if claim.IP == hop.Source.String() {
			return claim.Interface
		}
	}
	return ""
}

func kindOf(kind egress.PathKind) live.Kind {
	switch kind {
	case egress.PathLocal:
		return live.Here
	case egress.PathRemote:
		return live.ByOverlay
	case egress.PathDrop:
		return live.Dropped
	case egress.PathRefuse:
		return live.Refused
	case egress.PathNode:
	}
	return live.AsIs
}

// look looks into the kernels of the hosts that the pod's packets pass.
func (e *podExplanation) look(ctx context.Context, asks ask, to netip.Addr) {
	for i := range e.Routes {
		if r := &e.Routes[i]; r.trace != nil && (!to.IsValid() || r.Outcome != egress.OutcomeNoFamily) {
			r.look(ctx, asks, questions(e.view, r.trace, to))
		}
	}
}

// look asks the hosts, and compares what each has with what is meant. A host that does not answer
// is unknown.
func (r *podRoute) look(ctx context.Context, asks ask, list []question) {
	r.Live = []live.Check{}
	for _, q := range list {
		host, err := askLive(ctx, asks, q)
		if err != nil {
			r.Live = append(r.Live, live.Check{Host: orDash(q.node), Object: "what the kernel has", Want: "an answer", Have: err.Error(), Verdict: live.Unknown})
			continue
		}
		r.Live = append(r.Live, live.Compare(q.want, host)...)
	}
}

func askLive(ctx context.Context, asks ask, q question) (live.Host, error) {
	if q.node == "" {
		return live.Host{}, fmt.Errorf("no HostSubnet has the address of this egress host")
	}
	answer, err := asks(ctx, q.node, livePath+"?"+q.query.Values().Encode())
	if err != nil {
		return live.Host{}, err
	}
	var host live.Host
	if err := json.Unmarshal(answer, &host); err != nil {
		return live.Host{}, fmt.Errorf("the agent of node %s answers in another form, as of another version: %w", q.node, err)
	}
	return host, nil
}

// printLive writes what differs, and how much does not.
func (r *podRoute) printLive(w io.Writer) error {
	if r.Live == nil {
		return nil
	}
	differ := live.Differ(r.Live)
	if _, err := fmt.Fprintf(w, "\nIn the kernels, for %s: %d as meant, %d not.\n", r.Address, len(r.Live)-len(differ), len(differ)); err != nil || len(differ) == 0 {
		return err
	}
	table := newTable(w, "HOST", "VERDICT", "OBJECT", "MEANT", "FOUND")
	for _, c := range differ {
		table.row(c.Host, c.Verdict, c.Object, c.Want, c.Have)
	}
	return table.flush("")
}

// verdict is the exit code of what was found in kernels: 0 if all is as meant.
func (e *podExplanation) verdict() error {
	var all []live.Check
	for _, r := range e.Routes {
		all = append(all, r.Live...)
	}
	switch {
	case len(live.Differ(all)) == 0:
		return nil
	case live.Unclear(all):
		return exitError{exitWarnings}
	}
	return exitError{exitErrors}
}
