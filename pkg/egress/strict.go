package egress

import (
	"net/netip"
	"slices"
)

// strictNetworks returns the networks that strict classification covers on a host: those
// that are known as its own; and those of the cluster's pods where one of the host's pods
// has an address there, as with a CNI that gives addresses out of pools of its own. It also
// returns the pod with the least address that is in no network, if there is one, of those of
// the family of the host's own address.
func strictNetworks(own, cluster []netip.Prefix, pods []Pod, hosts []netip.Addr, family Family) (networks []netip.Prefix, stray Pod) {
	networks = slices.Clone(own)
	for _, pod := range pods {
		within := func(p netip.Prefix) bool { return p.Contains(pod.IP) }
		if FamilyOf(pod.IP) != family || slices.Contains(hosts, pod.IP) || slices.ContainsFunc(networks, within) {
			continue
		}
		if i := slices.IndexFunc(cluster, within); i >= 0 {
			networks = append(networks, cluster[i])
			continue
		}
		if !stray.IP.IsValid() || pod.IP.Less(stray.IP) {
			stray = pod
		}
	}
	slices.SortFunc(networks, netip.Prefix.Compare)
	return networks, stray
}
