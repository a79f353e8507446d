package egress

import "fmt"

// groupOverlaps are the overlaps of one group with others.
type groupOverlaps struct {
	// used are pods that have this group's egress IPs, although the other one says theirs, too;
	// ignored are those that have the other's.
	used, ignored podOverlaps
}

// podOverlaps are on how many hosts such pods are, and one of them.
type podOverlaps struct {
	pods       int
	pod, host  string
	otherGroup string
}

// overlapsOf are the overlaps by group, as agents report them: each one pod of its host for each
// two groups.
func overlapsOf(c Cluster) map[string]groupOverlaps {
	var all map[string]groupOverlaps
	for h := range c.Hosts {
		host := &c.Hosts[h]
		for _, o := range host.Overlaps {
			if all == nil {
				all = make(map[string]groupOverlaps)
			}
			used := all[o.Used]
			used.used.add(o.Pod, host.Name, o.Ignored)
			all[o.Used] = used
			ignored := all[o.Ignored]
			ignored.ignored.add(o.Pod, host.Name, o.Used)
			all[o.Ignored] = ignored
		}
	}
	return all
}

func (p *podOverlaps) add(pod, host, other string) {
	if p.pods++; p.pods == 1 {
		p.pod, p.host, p.otherGroup = pod, host, other
	}
}

// message says which pods of the group leave otherwise, and for which others it counts.
func (o groupOverlaps) message() string {
	text := ""
	if i := o.ignored; i.pods > 0 {
		text += fmt.Sprintf(" But pod %s on host %s%s leaves with the egress IPs of %s, which counts before this: change a selector, or remove one of both.",
			i.pod, i.host, i.andMore(), Title(i.otherGroup))
	}
	if u := o.used; u.pods > 0 {
		text += fmt.Sprintf(" It counts for pod %s on host %s%s, although %s says its egress IPs, too: change a selector, or remove one of both.",
			u.pod, u.host, u.andMore(), Title(u.otherGroup))
	}
	return text
}

// andMore counts the others.
func (p podOverlaps) andMore() string {
	if p.pods == 1 {
		return ""
	}
	return fmt.Sprintf(" (and others, %d reports in all)", p.pods)
}
