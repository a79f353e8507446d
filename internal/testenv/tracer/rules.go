package tracer

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// ErrUnknown is the error of a rule that has a word, or names a set, that the
// tracer does not know.
var ErrUnknown = errors.New("the tracer does not know it")

func unknown(kind, what string) error { return fmt.Errorf("%s %q: %w", kind, what, ErrUnknown) }

// Verdict is what a chain decides. The zero value decides nothing.
type Verdict string

// The verdicts.
const (
	Accept Verdict = "ACCEPT"
	Drop   Verdict = "DROP"
)

// Walk takes a packet through a base chain of each backend. The policy of base
// chains is ACCEPT.
func (h *Host) Walk(table, base string, p *Packet) (Verdict, error) {
	for _, tables := range h.Backends {
		t := tables[table]
		v, err := h.chain(t, t.Base[base], p)
		if err != nil {
			return "", fmt.Errorf("table %s, chain %s: %w", table, base, err)
		}
		if v == Drop {
			return v, nil
		}
		if table == "nat" && p.Conn.Source.IsValid() {
			return v, nil // the first backend to rewrite is the only one
		}
	}
	return Accept, nil
}

// chain takes a packet through rules, to a verdict or their end.
func (h *Host) chain(t Table, specs []string, p *Packet) (Verdict, error) {
	for _, spec := range specs {
		r, err := h.parse(spec)
		if err != nil {
			return "", err
		}
		if !r.matches(h, p) {
			continue
		}
		chain, isChain := t.Own[r.target]
		switch {
		case r.isGoto && isChain:
			return h.chain(t, chain, p)
		case isChain:
			if v, err := h.chain(t, chain, p); v != "" || err != nil {
				return v, err
			}
		case r.target == "RETURN":
			return "", nil
		default:
			if v, err := h.act(r, p); v != "" || err != nil {
				return v, err
			}
		}
	}
	return "", nil
}

// act does what a target says that is no chain.
func (h *Host) act(r rule, p *Packet) (v Verdict, err error) {
	switch r.target {
	case "DROP", "REJECT":
		return Drop, nil
	case "ACCEPT":
		return Accept, nil
	case "SNAT":
		p.Conn.Source, err = netip.ParseAddr(r.argument("--to-source", 0))
		return Accept, err
	case "MASQUERADE":
		p.Conn.Source = h.Addr
		return Accept, nil
	case "SET":
		marks, ok := h.Marks[r.argument("--map-set", 0)]
		if !ok || r.argument("--map-set", 1) != "src" {
			return "", unknown("set with marks", strings.Join(r.arguments, " "))
		}
		if mark, ok := marks[p.Src]; ok {
			p.Mark = p.Mark&^h.MarkMask | mark
		}
		return "", nil
	case "MARK":
		value, mask, err := valueAndMask(r.argument("--set-xmark", 0))
		p.Mark = p.Mark&^mask ^ value
		return "", err
	case "CONNMARK":
		return "", r.connmark(p)
	case "NOTRACK", "TCPMSS":
		return "", nil
	default:
		return "", unknown("target", r.target)
	}
}

// connmark does what target CONNMARK says.
func (r rule) connmark(p *Packet) error {
	option := ""
	if len(r.arguments) > 0 {
		option = r.arguments[0]
	}
	switch option {
	case "--set-xmark":
		value, mask, err := valueAndMask(r.argument(option, 0))
		p.Conn.Mark = p.Conn.Mark&^mask ^ value
		return err
	case "--save-mark", "--restore-mark":
		packet, err := number(r.argument("--nfmask", 0))
		if err != nil {
			return err
		}
		conn, err := number(r.argument("--ctmask", 0))
		if option == "--save-mark" {
			p.Conn.Mark = p.Conn.Mark&^conn ^ p.Mark&packet
		} else {
			p.Mark = p.Mark&^packet ^ p.Conn.Mark&conn
		}
		return err
	default:
		return unknown("option of CONNMARK", option)
	}
}

// rule is the text of a rule taken apart.
type rule struct {
	conditions []condition
	target     string
	isGoto     bool
	arguments  []string
}

// condition reports whether one match holds.
type condition func(h *Host, p *Packet) bool

func (r rule) matches(h *Host, p *Packet) bool {
	return !slices.ContainsFunc(r.conditions, func(c condition) bool { return !c(h, p) })
}

// argument returns the word n places behind an option of the target.
func (r rule) argument(option string, n int) string {
	if i := slices.Index(r.arguments, option); i >= 0 && i+1+n < len(r.arguments) {
		return r.arguments[i+1+n]
	}
	return ""
}

// parse takes a rule apart, once.
func (h *Host) parse(spec string) (rule, error) {
	if r, ok := h.parsed[spec]; ok {
		return r, nil
	}
	w := &words{rest: strings.Fields(spec)}
	var r rule
	for r.target == "" {
		word := w.next()
		negated := word == "!"
		if negated {
			word = w.next()
		}
		switch word {
		case "":
			return rule{}, unknown("rule without a target", spec)
		case "-j", "-g":
			r.target, r.isGoto, r.arguments = w.next(), word == "-g", w.rest
		case "-m":
			w.module = w.next()
		default:
			is, err := h.parseMatch(word, w)
			if err != nil {
				return rule{}, fmt.Errorf("rule %q: %w", spec, err)
			}
			r.conditions = append(r.conditions, func(h *Host, p *Packet) bool { return is(h, p) != negated })
		}
	}
	if h.parsed == nil {
		h.parsed = map[string]rule{}
	}
	h.parsed[spec] = r
	return r, nil
}

// words are those of a rule that are not read yet.
type words struct {
	rest []string
	// module is the one that options belong to.
	module string
}

// next takes a word; none at the end.
func (w *words) next() string {
	if len(w.rest) == 0 {
		return ""
	}
	word := w.rest[0]
	w.rest = w.rest[1:]
	return word
}

// parseMatch reads the match of an option.
func (h *Host) parseMatch(option string, w *words) (condition, error) {
	value := w.next()
	switch option {
	case "-i":
		return func(_ *Host, p *Packet) bool { return p.In == value }, nil
	case "-o":
		return func(_ *Host, p *Packet) bool { return p.Out == value }, nil
	case "-s":
		n, err := netip.ParsePrefix(value)
		return func(_ *Host, p *Packet) bool { return n.Contains(p.Src) }, err
	case "-d":
		n, err := netip.ParsePrefix(value)
		return func(_ *Host, p *Packet) bool { return n.Contains(p.Dst) }, err
	case "-p":
		return func(_ *Host, p *Packet) bool { return p.Proto == value }, nil
	case "--dport":
		port, err := strconv.ParseUint(value, 10, 16)
		return func(_ *Host, p *Packet) bool { return p.DestPort == uint16(port) }, err
	case "--tcp-flags":
		if flags := w.next(); flags != "SYN" {
			return nil, unknown("TCP flags", flags)
		}
		return func(_ *Host, p *Packet) bool { return p.State == New }, nil
	case "--ctdir":
		return func(_ *Host, p *Packet) bool { return p.tracked() && string(p.Dir) == value }, nil
	case "--ctstate":
		states := strings.Split(value, ",")
		return func(_ *Host, p *Packet) bool { return slices.Contains(states, string(p.State)) }, nil
	case "--ctstatus":
		if value != "CONFIRMED" {
			return nil, unknown("connection status", value)
		}
		return func(_ *Host, p *Packet) bool { return p.tracked() && p.Conn.Confirmed }, nil
	case "--src-type":
		if value != "LOCAL" {
			return nil, unknown("type of address", value)
		}
		return func(h *Host, p *Packet) bool { return p.Src == h.Addr }, nil
	case "--mark":
		return parseMark(w.module, value)
	case "--match-set":
		return h.parseMatchSet(value, w.next())
	default:
		return nil, unknown("match", option)
	}
}

func parseMark(module, value string) (condition, error) {
	want, mask, err := valueAndMask(value)
	switch module {
	case "mark":
		return func(_ *Host, p *Packet) bool { return p.Mark&mask == want }, err
	case "connmark":
		return func(_ *Host, p *Packet) bool { return p.Conn.Mark&mask == want }, err
	default:
		return nil, unknown("module of --mark", module)
	}
}

func (h *Host) parseMatchSet(set, side string) (condition, error) {
	if _, ok := h.Pairs[set]; ok && side == "src,dst" {
		return func(h *Host, p *Packet) bool { return h.Pairs[set](p.Src, p.Dst) }, nil
	}
	if _, ok := h.Sets[set]; !ok {
		return nil, unknown("set", set)
	}
	switch side {
	case "src", "src,src,dst": // of a connection, the tracer looks its source up
		return func(h *Host, p *Packet) bool { return h.Sets[set](p.Src) }, nil
	case "dst":
		return func(h *Host, p *Packet) bool { return h.Sets[set](p.Dst) }, nil
	default:
		return nil, unknown("addresses of a set", side)
	}
}

func valueAndMask(s string) (value, mask uint32, err error) {
	v, m, _ := strings.Cut(s, "/")
	if value, err = number(v); err == nil {
		mask, err = number(m)
	}
	return value, mask, err
}

func number(s string) (uint32, error) {
	n, err := strconv.ParseUint(s, 0, 32)
	return uint32(n), err
}
