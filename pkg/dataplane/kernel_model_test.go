package dataplane

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// The tracer follows packets through a kernel that is a value: it interprets
// the rules as text, in the form in which iptables-save shows them, and the
// sets, maps and routes that they refer to. It knows what our rules use, and
// stops at anything else.

// tracedHost is one host: what is ours in its kernel, and what is not.
type tracedHost struct {
	kernel
	ip    netip.Addr
	pods  netip.Prefix
	marks Marks
	// noRule: ip rules of ours are gone. noOverlay: the overlay is, and the
	// routes over it with it. noLastRoute: the routes that hold its packets
	// then are gone too.
	noRule, noOverlay, noLastRoute bool
	// words are rules taken apart.
	words map[string][]string
}

// traced is a packet on its way through a host.
type traced struct {
	in, out  string
	src, dst netip.Addr
	proto    string
	dport    uint16
	mark     uint32
	dir      string // ORIGINAL or REPLY
	state    string // NEW, ESTABLISHED, INVALID or UNTRACKED
	conn     *tracedConn
}

// tracedConn is a connection as one host tracks it.
type tracedConn struct {
	confirmed, bound bool
	mark             uint32
	source           netip.Addr // by source NAT
	elsewhere        netip.Addr // by that of the host at the other end of the overlay
}

// outcome is what becomes of a packet at one host.
type outcome struct {
	dropped string // why, if it was
	out     string
	src     netip.Addr
	netID   uint32
	via     string
}

func (o outcome) String() string {
	switch {
	case o.dropped != "":
		return "dropped"
	case o.out == overlayName:
		return fmt.Sprintf("network %d over the overlay to %s", o.netID, o.via)
	default:
		return fmt.Sprintf("%s as %v", o.out, o.src)
	}
}

// forward sends a packet through a host that is not its destination.
func (h *tracedHost) forward(p traced) outcome {
	if v := h.walk(mangleTable, "PREROUTING", &p); v == "DROP" {
		return outcome{dropped: "mangle PREROUTING"}
	}
	if p.out = h.route(p); p.out == "" {
		return outcome{dropped: "unreachable"}
	}
	for _, t := range []table{mangleTable, filterTable} {
		if v := h.walk(t, "FORWARD", &p); v == "DROP" {
			return outcome{dropped: string(t) + " FORWARD"}
		}
	}
	if p.state == "NEW" && !p.conn.bound {
		h.walk(natTable, "POSTROUTING", &p)
		p.conn.bound = true // to no other source, if no rule said one
	}
	p.conn.confirmed = p.conn.confirmed || p.state == "NEW"
	if p.conn.source.IsValid() && p.dir == "ORIGINAL" && p.state != "INVALID" && p.state != "UNTRACKED" {
		p.src = p.conn.source
	}
	if p.out != overlayName {
		return outcome{out: p.out, src: p.src}
	}
	r, ok := h.routes[p.src]
	if p.mark&h.marks.Remote() == 0 || !ok {
		return outcome{dropped: "outward program"}
	}
	if !p.conn.elsewhere.IsValid() {
		p.conn.elsewhere = r.sources[0]
	}
	return outcome{out: overlayName, src: p.src, netID: r.netID, via: fmt.Sprint(r.via)}
}

// fromOverlay is forward for a packet that comes over the overlay.
func (h *tracedHost) fromOverlay(netID uint32, p traced) outcome {
	p.in, p.mark = overlayName, h.served[netID]
	return h.forward(p)
}

// route gives the device that a packet leaves by; none, if the routes hold it.
func (h *tracedHost) route(p traced) string {
	inside := false
	for n := range h.inside {
		inside = inside || n.Contains(p.dst)
	}
	if p.mark&h.marks.Remote() != 0 && !h.noRule && !inside {
		switch {
		case !h.noOverlay:
			return overlayName
		case !h.noLastRoute:
			return ""
		}
	}
	if h.pods.Contains(p.dst) {
		return "cni0"
	}
	return "eth0"
}

// walk takes a packet through a chain of the kernel's, in each backend.
func (h *tracedHost) walk(t table, base string, p *traced) string {
	for _, b := range []Backend{NFT, Legacy} {
		saved := h.rules[b][t]
		verdict, _ := h.chain(saved, saved.base[base], p)
		if verdict == "DROP" {
			return verdict
		}
		if t == natTable && p.conn.source.IsValid() {
			return verdict // the first backend to rewrite is the only one
		}
	}
	return "ACCEPT"
}

// chain gives a verdict, or none at the end of the chain.
func (h *tracedHost) chain(saved savedTable, rules []string, p *traced) (verdict string, rewritten bool) {
	for _, spec := range rules {
		matched, rest := h.matches(spec, p)
		if !matched {
			continue
		}
		switch action := rest[1]; {
		case rest[0] == "-g":
			return h.chain(saved, saved.own[action], p)
		case strings.HasPrefix(action, chainPrefix):
			if v, _ := h.chain(saved, saved.own[action], p); v != "" {
				return v, false
			}
		case action == "RETURN":
			return "", false
		case action == "DROP", action == "ACCEPT":
			return action, false
		case action == "SNAT":
			p.conn.source = netip.MustParseAddr(rest[3])
			return "ACCEPT", true
		case action == "MASQUERADE":
			p.conn.source = h.ip
			return "ACCEPT", true
		case action == "SET":
			if mark, ok := h.kernel.pods[p.src]; ok {
				p.mark = p.mark&^h.marks.Mask | mark
			}
		case action == "MARK":
			value, mask := valueAndMask(rest[3])
			p.mark = p.mark&^mask ^ value
		case action == "CONNMARK":
			h.connmark(rest[2:], p)
		case action == "NOTRACK", action == "TCPMSS":
		default:
			panic("the tracer does not know target " + action)
		}
	}
	return "", false
}

func (h *tracedHost) connmark(args []string, p *traced) {
	switch args[0] {
	case "--set-xmark":
		value, mask := valueAndMask(args[1])
		p.conn.mark = p.conn.mark&^mask ^ value
	case "--save-mark":
		nf, ct := number(args[2]), number(args[4])
		p.conn.mark = p.conn.mark&^ct ^ p.mark&nf
	case "--restore-mark":
		nf, ct := number(args[2]), number(args[4])
		p.mark = p.mark&^nf ^ p.conn.mark&ct
	default:
		panic("the tracer does not know CONNMARK " + args[0])
	}
}

// matches tells whether a rule's matches hold, and gives its target with
// arguments.
func (h *tracedHost) matches(spec string, p *traced) (bool, []string) {
	words, known := h.words[spec]
	if !known {
		words = strings.Fields(spec)
		h.words[spec] = words
	}
	tracked := p.state != "INVALID" && p.state != "UNTRACKED"
	var module string
	all, not := true, false
	for i := 0; i < len(words); i++ {
		next := func() string { i++; return words[i] }
		var is bool
		switch w := words[i]; w {
		case "!":
			not = true
			continue
		case "-m":
			module = next()
			continue
		case "-j", "-g":
			return all, words[i:]
		case "-i":
			is = p.in == next()
		case "-o":
			is = p.out == next()
		case "-s":
			is = netip.MustParsePrefix(next()).Contains(p.src)
		case "-d":
			is = netip.MustParsePrefix(next()).Contains(p.dst)
		case "-p":
			is = p.proto == next()
		case "--dport":
			is = strconv.Itoa(int(p.dport)) == next()
		case "--ctdir":
			is = p.dir == next() && tracked
		case "--ctstate":
			is = slices.Contains(strings.Split(next(), ","), p.state)
		case "--ctstatus":
			is = p.conn.confirmed == (next() == "CONFIRMED") && tracked
		case "--mark":
			value, mask := valueAndMask(next())
			mark := p.mark
			if module == "connmark" {
				mark = p.conn.mark
			}
			is = mark&mask == value
		case "--match-set":
			set := next()
			ip := p.src
			if next() == "dst" {
				ip = p.dst
			}
			is = h.inSet(set, ip)
		case "--tcp-flags":
			i += 2
			is = p.state == "NEW"
		default:
			panic("the tracer does not know match " + w)
		}
		all = all && is != not
		not = false
	}
	panic("a rule without a target: " + spec)
}

func (h *tracedHost) inSet(set string, ip netip.Addr) (is bool) {
	switch set {
	case setPods:
		_, is = h.kernel.pods[ip]
	case setLocked:
		_, is = h.locked[ip]
	case setHosts:
		_, is = h.hosts[ip]
	case setIPs:
		_, is = h.ips[ip]
	case setInside:
		for n := range h.inside {
			is = is || n.Contains(ip)
		}
	case setResets: // no connection of the tracer's has ended
	default:
		panic("the tracer does not know set " + set)
	}
	return is
}

func valueAndMask(s string) (value, mask uint32) {
	v, m, _ := strings.Cut(s, "/")
	return number(v), number(m)
}

func number(s string) uint32 {
	n, err := strconv.ParseUint(s, 0, 32)
	if err != nil {
		panic(err)
	}
	return uint32(n)
}

// do makes a change in the model; forget is called for forgetFlows.
func (k *kernel) do(c change, forget func()) {
	sets := map[string]map[netip.Addr]struct{}{setLocked: k.locked, setHosts: k.hosts, setIPs: k.ips}
	switch {
	case c.op == putMember && c.set == setPods:
		k.pods[c.ip] = c.mark
	case c.op == delMember && c.set == setPods:
		delete(k.pods, c.ip)
	case c.op == putMember && c.set == setInside:
		k.inside[c.prefix] = struct{}{}
	case c.op == delMember && c.set == setInside:
		delete(k.inside, c.prefix)
	case c.op == putMember:
		sets[c.set][c.ip] = struct{}{}
	case c.op == delMember:
		delete(sets[c.set], c.ip)
	case c.op == putRoute:
		k.routes[c.ip] = c.route
	case c.op == delRoute:
		delete(k.routes, c.ip)
	case c.op == putServed:
		k.served[c.netID] = c.mark
	case c.op == delServed:
		delete(k.served, c.netID)
	case c.op == putRules:
		k.rules[c.backend][c.table] = c.after
	case c.op == addAddress:
		k.addresses[c.ip] = struct{}{}
	case c.op == delAddress:
		delete(k.addresses, c.ip)
	case c.op == forgetFlows:
		forget()
	}
}

// copied is a kernel that can be changed alone.
func (k kernel) copied() kernel {
	c := k
	c.pods, c.locked, c.hosts, c.ips = maps.Clone(k.pods), maps.Clone(k.locked), maps.Clone(k.hosts), maps.Clone(k.ips)
	c.inside, c.routes, c.served = maps.Clone(k.inside), maps.Clone(k.routes), maps.Clone(k.served)
	c.addresses = maps.Clone(k.addresses)
	c.rules = map[Backend]map[table]savedTable{}
	for b, tables := range k.rules {
		c.rules[b] = maps.Clone(tables)
	}
	return c
}
