package main

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// addressExplanation is who has an address, and what would become of a request for it.
type addressExplanation struct {
	Address string `json:"address"`
	// Facts are what objects say about it.
	Facts []step `json:"facts"`
	// Request is what would become of a request of one more namespace.
	Request *requestExplanation `json:"request,omitempty"`
	Unknown []string            `json:"unknown,omitempty"`
}

// requestExplanation is what would become of a request.
type requestExplanation struct {
	State   egress.State  `json:"state"`
	Reason  egress.Reason `json:"reason"`
	Host    string        `json:"host,omitempty"`
	Message string        `json:"message"`
}

func (e *addressExplanation) fact(name, format string, args ...any) {
	e.Facts = append(e.Facts, step{name, fmt.Sprintf(format, args...)})
}

// explainIP reads what there is about an address.
func explainIP(ctx context.Context, c client.Reader, o egress.Objects, ip netip.Addr) addressExplanation {
	e := addressExplanation{Address: ip.String()}
	cluster, _ := egress.Snapshot(o)
	resolution := egress.Resolve(cluster)
	requested := e.addRequests(resolution, ip)
	e.addClaims(o, resolution, ip)
	f := readFacts(ctx, c)
	for _, n := range slices.Concat(egress.Networks(cluster), egress.NotedNetworks(cluster, f.kubeadm)) {
		if !n.Network.IsValid() || !n.Network.Contains(ip) {
			continue
		}
		counts := "inside"
		if !n.Inside {
			counts = "not inside: " + n.Why
		}
		e.fact("in", "%s, by %s, host %s: %s", n.Network, n.Source, orDash(n.Host), counts)
	}
	e.addPods(ctx, c, ip)
	if !requested {
		r := egress.Ask(cluster, ip)
		e.Request = &requestExplanation{State: r.State, Reason: r.Reason, Host: r.Host, Message: r.Message}
	}
	return e
}

// addRequests adds the groups that request the address.
func (e *addressExplanation) addRequests(resolution egress.Resolution, ip netip.Addr) (requested bool) {
	for _, g := range resolution.Groups {
		for _, r := range g.Requests {
			if r.IP == ip.String() {
				requested = true
				e.fact("requested by", "%s: %s (%s), host %s. %s", egress.Title(g.Name), r.State, r.Reason, orDash(r.Host), r.Message)
			}
		}
	}
	return requested
}

// addClaims adds the hosts that list the address, and those whose agents report it.
func (e *addressExplanation) addClaims(o egress.Objects, resolution egress.Resolution, ip netip.Addr) {
	for _, h := range resolution.Hosts {
		object := hostSubnetOf(o.HostSubnets, h.Name)
		claimed := false
		for _, claim := range h.Claims {
			if claim.IP == ip {
				claimed = true
				e.fact("claimed by", "%s: %s (%s). %s", h.Name, claim.State, claim.Reason, claim.Message)
			}
		}
		for _, s := range object.Status.EgressIPs {
			switch {
			case s.IP != ip.String():
			case s.Configured && claimed:
				e.fact("had by", "%s, as its agent reports", h.Name)
			case s.Configured:
				e.fact("had by", "%s, as its agent reported last, although the host does not claim it (any more)", h.Name)
			default:
				e.fact("not had by", "%s, as its agent reports (%s): %s", h.Name, orDash(s.Reason), s.Message)
			}
		}
	}
}

// addPods adds the pods that have the address.
func (e *addressExplanation) addPods(ctx context.Context, c client.Reader, ip netip.Addr) {
	var list corev1.PodList
	if err := c.List(ctx, &list, client.MatchingFields{"status.podIP": ip.String()}); err != nil {
		e.Unknown = append(e.Unknown, fmt.Sprintf("Which pod has it: %v.", err))
		return
	}
	for i := range list.Items {
		seen := seenPod(&list.Items[i])
		switch {
		case seen.Ended:
		case seen.HostNetwork:
			e.fact("node of", "pod %s/%s on %s", seen.Namespace, seen.Name, list.Items[i].Spec.NodeName)
		default:
			e.fact("pod", "%s/%s on %s", seen.Namespace, seen.Name, list.Items[i].Spec.NodeName)
		}
	}
}

// print writes it for people.
func (e *addressExplanation) print(w io.Writer) error {
	table := newTable(w)
	for _, f := range e.Facts {
		table.row(f.Step, f.Text)
	}
	if err := table.flush("No object requests " + e.Address + ", no host claims it, and no network that is known has it."); err != nil {
		return err
	}
	var lines []string
	if r := e.Request; r != nil {
		would := fmt.Sprintf("If a namespace requested it, it would be %s (%s). %s", r.State, r.Reason, r.Message)
		if r.State == egress.Unassigned && r.Host != "" {
			would = fmt.Sprintf("If a namespace requested it, the controller would assign it to host %s.", r.Host)
		}
		lines = append(lines, would)
	}
	for _, u := range e.Unknown {
		lines = append(lines, "Not known: "+u)
	}
	return printAll(w, lines)
}
