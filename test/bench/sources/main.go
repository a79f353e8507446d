// Command sources measures what it costs a packet that sources are checked.
//
// Pods send UDP packets by a host to a server, each in a network namespace, from one
// thread: the kernel does all that happens to a packet before the next one is sent. The
// host has 110 links of pods, half of them of pods with egress IPs. It has the tables of
// nftables that check sources (A), or not (B), in turn, and nothing else of ours.
//
// What is counted is the time of the processor. Other work on the machine makes rounds slow
// all the same: the quietest tenth says most.
//
// It also measures what a pass of the agent takes: to read which links lead to the pods,
// to make the tables, and to add one pod.
//
//	go run ./test/bench/sources [-rounds 100] [-packets 5000]
package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/nftables"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/podlink"
	"github.com/egressip-operator/egressip-operator/test/bench/onehost"
)

func main() { onehost.Main("sources", 100, measure) }

func measure(_ context.Context, rounds, packets int) (err error) {
	d, err := nftables.Open(true)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	want, err := checked()
	if err != nil {
		return err
	}
	if err := passes(d, want, rounds); err != nil {
		return err
	}
	put := func() error { return d.PutLinks(want, 0) }
	remove := func() error { _, err := d.RemoveLinks(); return err }
	for _, pod := range onehost.Pods() {
		if err := onehost.Compare(pod, rounds, packets, put, remove); err != nil {
			return err
		}
	}
	return nil
}

// checked are the links that the tables have.
func checked() (nftables.Links, error) {
	l := nftables.Links{Sources: map[int][]netip.Addr{}}
	for i := range onehost.Links {
		ip := onehost.Address(i)
		link, err := net.InterfaceByName(fmt.Sprintf("v-%d", 2+i))
		if err != nil {
			return l, err
		}
		l.Pods = append(l.Pods, link.Index)
		if onehost.Locked(i) {
			l.Sources[link.Index], l.Guarded = []netip.Addr{ip}, append(l.Guarded, ip)
		}
	}
	for _, name := range []string{"lo", "up0", "cni0"} {
		link, err := net.InterfaceByName(name)
		if err != nil {
			return l, err
		}
		l.Others = append(l.Others, link.Index)
	}
	return l, nil
}

// passes measures what a pass of the agent takes.
func passes(d *nftables.Driver, want nftables.Links, rounds int) error {
	nl, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer nl.Close()
	var pods []netip.Addr
	for i := range onehost.Links {
		pods = append(pods, onehost.Address(i))
	}
	less := want
	less.Guarded = want.Guarded[1:]
	took := map[string][]time.Duration{}
	for range rounds {
		for _, step := range []struct {
			name string
			do   func() error
		}{
			{"read the links of 110 pods", func() error { _, err := podlink.Read(nl, pods); return err }},
			{"make the tables", func() error { return d.PutLinks(less, 0) }},
			{"add a pod", func() error { return d.PutLinks(want, 0) }},
			{"find that nothing has changed", func() error {
				content, err := d.ObserveLinks()
				if err == nil && !content.Is(want) {
					err = errors.New("the tables are not as they were put")
				}
				return err
			}},
			{"delete the tables", func() error { _, err := d.RemoveLinks(); return err }},
		} {
			began := time.Now()
			if err := step.do(); err != nil {
				return fmt.Errorf("%s: %w", step.name, err)
			}
			took[step.name] = append(took[step.name], time.Since(began))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(took)) {
		slices.Sort(took[name])
		fmt.Printf("%s: quietest tenth %v, median %v\n", name, took[name][rounds/10], took[name][rounds/2])
	}
	return nil
}
