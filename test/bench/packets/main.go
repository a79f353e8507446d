// Command packets measures what all that the agent puts into the kernel costs a packet, with
// rules in nftables: of pods that leave with the host's egress IP, and of pods that leave as
// without us. The host has 110 pods, half of them with egress IPs, or it has them and nothing of
// ours, in turn. See package onehost.
//
//	go run ./test/bench/packets [-rounds 40] [-packets 5000]
package main

import (
	"context"
	"errors"
	"net/netip"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane"
	"github.com/egressip-operator/egressip-operator/test/bench/onehost"
)

func main() {
	onehost.Main("packets", 40, func(ctx context.Context, rounds, packets int) error {
		for _, pod := range onehost.Pods() {
			put := func() error { return put(ctx) }
			remove := func() error { return dataplane.Cleanup(ctx, config()) }
			if err := onehost.Compare(pod, rounds, packets, put, remove); err != nil {
				return err
			}
		}
		return nil
	})
}

func config() dataplane.Config {
	return dataplane.Config{PinDir: "/run/bpf/egressip", ARPProbe: dataplane.ARPOff}
}

// put brings a host's whole state into the kernel, as an agent does that ends then.
func put(ctx context.Context) (err error) {
	d, err := dataplane.New(config())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	_, err = d.Apply(ctx, state())
	return err
}

func state() dataplane.State {
	host, pods := netip.MustParseAddr("192.168.7.11"), netip.MustParsePrefix("10.244.1.0/24")
	s := dataplane.State{
		HostIP: host, Hosts: []netip.Addr{host, netip.MustParseAddr("192.168.7.12")}, Strict: true, Subnets: []netip.Prefix{pods},
		Inside: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16"), netip.MustParsePrefix("10.96.0.0/16"), netip.MustParsePrefix("169.254.0.0/16")},
	}
	for i := range 4 {
		s.Hosted = append(s.Hosted, dataplane.Hosted{IP: netip.AddrFrom4([4]byte{192, 168, 7, byte(200 + i)}), NetID: uint32(7 + i)})
	}
	for i := range onehost.Links {
		p := dataplane.Pod{IP: onehost.Address(i), Kind: dataplane.Node}
		if onehost.Locked(i) {
			h := s.Hosted[i%len(s.Hosted)]
			p.Kind, p.NetID, p.EgressIP = dataplane.Local, h.NetID, h.IP
		}
		s.Pods = append(s.Pods, p)
	}
	return s
}
