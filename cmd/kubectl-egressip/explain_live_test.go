package main

import (
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/egressip-operator/egressip-operator/pkg/live"
)

// playedAgents answer questions about kernels by node, as agents do.
type playedAgents map[string]func(q live.Query) (live.Host, error)

func (a playedAgents) ask(_ context.Context, node, path string) ([]byte, error) {
	u, err := url.Parse(path)
	if err != nil || u.Path != livePath {
		return nil, errors.New("no such path: " + path)
	}
	q, err := live.ParseQuery(u.Query())
	if err != nil {
		return nil, err
	}
	answer, ok := a[node]
	if !ok {
		return nil, errors.New("no agent runs on node " + node)
	}
	host, err := answer(q)
	if err != nil {
		return nil, err
	}
	return json.Marshal(host)
}

// asMeant answers what a host has in which all is as the objects say.
func asMeant(q live.Query) (live.Host, error) {
	h := live.Host{Overlay: &live.Overlay{Exists: true, Up: true, Outward: true, Inward: true, NextHop: true, Filter: 2}}
	if q.Sender {
		s := &live.Sender{Known: true, Way: live.WayNode, Out: live.Lookup{Interface: "eth0"}}
		switch {
		case len(q.Via) > 0:
			s.Way, s.Locked, s.BoundTo, s.Out.Interface = live.WayOverlay, true, "veth1", live.OverlayName
			s.Route = &live.Route{NetID: 17, Via: q.Via}
			for _, via := range q.Via {
				s.Via = append(s.Via, live.Neighbour{Host: via, Listed: true, Out: live.Lookup{Interface: "eth0"}})
			}
		case q.EgressIP.IsValid():
			s.Way, s.Locked, s.BoundTo, s.Source = live.WayHere, true, "veth1", q.EgressIP
		}
		h.Sender = s
	}
	if q.EgressIP.IsValid() {
		h.Egress = &live.Egress{
			Served: true, Source: q.EgressIP, Index: true, Listed: true, Sender: true, Addresses: []live.Address{{Interface: "eth0", Up: true, Ours: true}},
			Guards: []live.Guard{{Interface: "eth0", Known: true}}, Out: live.Lookup{Interface: "eth0"}, Back: live.Lookup{Local: true},
		}
	}
	return h, nil
}

// TestExplainPodLive: of pods of all kinds, the hosts that their packets pass are asked, and what
// differs from what the objects say is printed and is the exit code; an agent that does not answer
// makes it unknown, and nothing else wrong.
//
// Mutants: live-asks-the-pods-host-alone, live-silence-is-fine.
func TestExplainPodLive(t *testing.T) {
	t.Parallel()
	s := startServer(t, "crd")
	s.cluster(t)
	s.agents(t, "--strict=true")
	s.runs(t, "shop", "near", "node1", "10.244.1.5", nil)
	s.runs(t, "shop", "far", "node2", "10.244.2.5", nil)
	s.runs(t, "free", "plain", "node2", "10.244.2.6", nil)
	excluding := func(answer func(live.Query) (live.Host, error)) func(live.Query) (live.Host, error) {
		return func(q live.Query) (live.Host, error) {
			h, err := answer(q)
			if h.Sender != nil && h.Sender.Locked {
				h.Sender.Excluded = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
			}
			return h, err
		}
	}
	good := excluding(asMeant)
	lacks := func(change func(h *live.Host)) func(live.Query) (live.Host, error) {
		return func(q live.Query) (live.Host, error) {
			h, err := good(q)
			change(&h)
			return h, err
		}
	}
	for name, c := range map[string]struct {
		pod, namespace string
		agents         playedAgents
		asked          []string
		code           int
		want           []string
	}{
		"here, as meant":     {"near", "shop", playedAgents{"node1": good}, []string{"node1"}, 0, []string{"for 10.244.1.5:", "as meant, 0 not."}},
		"remote, as meant":   {"far", "shop", playedAgents{"node1": good, "node2": good}, []string{"node2", "node1"}, 0, []string{"as meant, 0 not."}},
		"no egress IPs":      {"plain", "free", playedAgents{"node2": good}, []string{"node2"}, 0, []string{"as meant, 0 not."}},
		"nobody answers":     {"far", "shop", playedAgents{}, []string{"node2", "node1"}, exitWarnings, []string{"node1 unknown what the kernel has", "no agent runs on node node2"}},
		"one does not":       {"far", "shop", playedAgents{"node2": good}, []string{"node2", "node1"}, exitWarnings, []string{"node1 unknown"}},
		"not served":         {"far", "shop", playedAgents{"node2": good, "node1": lacks(func(h *live.Host) { h.Egress.Served = false })}, []string{"node2", "node1"}, exitErrors, []string{"node1 missing network 17 in map egress_hosted"}},
		"another egress IP":  {"near", "shop", playedAgents{"node1": lacks(func(h *live.Host) { h.Sender.Source = netip.MustParseAddr("10.1.8.201") })}, []string{"node1"}, exitErrors, []string{"node1 stale the pod in map egress-marks", "Here with 10.1.8.201"}},
		"a rule of others":   {"far", "shop", playedAgents{"node1": good, "node2": lacks(func(h *live.Host) { h.Sender.Out.Interface = "eth0" })}, []string{"node2", "node1"}, exitErrors, []string{"node2 foreign the route of the pod's packet"}},
		"and one is unknown": {"far", "shop", playedAgents{"node2": lacks(func(h *live.Host) { h.Sender.Locked = false })}, []string{"node2", "node1"}, exitErrors, []string{"missing the pod in set egress-locked", "node1 unknown"}},
	} {
		t.Run(name, func(t *testing.T) {
			o, err := readObjects(t.Context(), s.Client)
			if err != nil {
				t.Fatal(err)
			}
			e, err := explainPod(t.Context(), s.Client, o, c.namespace, c.pod, netip.AddrPort{})
			if err != nil {
				t.Fatal(err)
			}
			var asked []string
			e.look(t.Context(), func(ctx context.Context, node, path string) ([]byte, error) {
				asked = append(asked, node)
				return c.agents.ask(ctx, node, path)
			}, netip.Addr{})
			if !slices.Equal(asked, c.asked) {
				t.Errorf("asked %v, want %v", asked, c.asked)
			}
			var out strings.Builder
			if err := e.print(&out); err != nil {
				t.Fatal(err)
			}
			text := strings.Join(strings.Fields(out.String()), " ")
			for _, want := range c.want {
				if !strings.Contains(text, want) {
					t.Errorf("no %q in:\n%s", want, out.String())
				}
			}
			code := exitError{}
			if err := e.verdict(); err != nil && !errors.As(err, &code) || code.code != c.code {
				t.Errorf("the exit code is %d, want %d (%v):\n%s", code.code, c.code, err, out.String())
			}
			var written strings.Builder
			if err := formatJSON.print(&written, e, nil); err != nil || !strings.Contains(written.String(), `"verdict"`) {
				t.Errorf("for programs, %v: %s", err, written.String())
			}
		})
	}
}

// TestAgentOfANode: the agent is the pod of ours that runs there; one that has ended, or of another
// node, is not asked.
func TestAgentOfANode(t *testing.T) {
	t.Parallel()
	s := startServer(t, "crd")
	s.namespaces(t, "egressip-system")
	labels := map[string]string{labelName: ourName, labelComponent: componentAgent}
	s.runs(t, "egressip-system", "agent-1", "node1", "10.1.8.11", func(p *corev1.Pod) { p.Labels = labels })
	s.runs(t, "egressip-system", "agent-2", "node2", "10.1.8.12", func(p *corev1.Pod) {
		p.Labels = labels
		p.Status.Phase = corev1.PodFailed
	})
	s.runs(t, "egressip-system", "other", "node3", "10.1.8.13", nil)
	if pod, err := agentOn(t.Context(), s.Client, "node1"); err != nil || pod.Name != "agent-1" {
		t.Errorf("on node1: %v, %v", pod, err)
	}
	for _, node := range []string{"node2", "node3"} {
		if pod, err := agentOn(t.Context(), s.Client, node); err == nil || !strings.Contains(err.Error(), node) {
			t.Errorf("on %s: %v, %v", node, pod, err)
		}
	}
}
