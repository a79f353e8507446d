package command

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/types"
)

// choice is a flag with a fixed set of values.
type choice struct {
	value   *string
	choices []string
}

func newChoice(value *string, choices ...string) *choice {
	return &choice{value: value, choices: choices}
}

func (c *choice) String() string {
	if c.value == nil {
		return ""
	}
	return *c.value
}

func (c *choice) Set(s string) error {
	if !slices.Contains(c.choices, s) {
		return fmt.Errorf("use one of: %s", strings.Join(c.choices, ", "))
	}
	*c.value = s
	return nil
}

func (*choice) Type() string { return "string" }

// maskValue is a flag with bits, given as 0x1f7f or in decimal.
type maskValue uint32

func (m *maskValue) String() string { return fmt.Sprintf("%#x", uint32(*m)) }

func (m *maskValue) Set(s string) error {
	n, err := strconv.ParseUint(s, 0, 32)
	if err != nil {
		return errors.New("give 32 bits, such as 0x1f7f")
	}
	*m = maskValue(n)
	return nil
}

func (*maskValue) Type() string { return "hex" }

// objectValue is a flag that holds the name of an object in a namespace.
type objectValue types.NamespacedName

func (o *objectValue) String() string {
	if o.Name == "" {
		return ""
	}
	return o.Namespace + "/" + o.Name
}

func (o *objectValue) Set(s string) error {
	namespace, name, ok := strings.Cut(s, "/")
	if !ok || namespace == "" || name == "" || strings.Contains(name, "/") {
		return errors.New("give namespace/name, such as egressip-system/egressip-agent")
	}
	o.Namespace, o.Name = namespace, name
	return nil
}

func (*objectValue) Type() string { return "object" }

// addressValue is a flag with an address of IPv4 or IPv6.
type addressValue netip.Addr

func (a *addressValue) String() string {
	if ip := netip.Addr(*a); ip.IsValid() {
		return ip.String()
	}
	return ""
}

func (a *addressValue) Set(s string) error {
	ip, err := netip.ParseAddr(s)
	if err != nil || ip.Is4In6() || ip.Zone() != "" {
		return errors.New("give an address, such as 192.168.7.11 or fd00:7::11")
	}
	*a = addressValue(ip)
	return nil
}

func (*addressValue) Type() string { return "address" }

// cidrsValue is a flag with networks; if given several times, they add up.
type cidrsValue []netip.Prefix

func (c *cidrsValue) String() string {
	texts := make([]string, len(*c))
	for i, p := range *c {
		texts[i] = p.String()
	}
	return strings.Join(texts, ",")
}

func (c *cidrsValue) Set(s string) error {
	for text := range strings.SplitSeq(s, ",") {
		text = strings.TrimSpace(text)
		if text == "" {
			continue
		}
		p, err := netip.ParsePrefix(text)
		switch {
		case err != nil:
			return fmt.Errorf("%q is not a CIDR; give networks such as 10.244.0.0/16", text)
		case p.Addr().Is4In6():
			return fmt.Errorf("%q is IPv4 in the form of IPv6; give networks such as 10.244.0.0/16", text)
		case p.Bits() == 0:
			return fmt.Errorf("%q contains every address, so no traffic would be egress traffic; give the cluster's networks", text)
		case p != p.Masked():
			return fmt.Errorf("%q has host bits; give %s", text, p.Masked())
		}
		*c = append(*c, p)
	}
	return nil
}

func (*cidrsValue) Type() string { return "CIDRs" }

// macsValue is a flag with MAC addresses; if given several times, they add up.
type macsValue []net.HardwareAddr

func (m *macsValue) String() string {
	texts := make([]string, len(*m))
	for i, mac := range *m {
		texts[i] = mac.String()
	}
	return strings.Join(texts, ",")
}

func (m *macsValue) Set(s string) error {
	for text := range strings.SplitSeq(s, ",") {
		text = strings.TrimSpace(text)
		if text == "" {
			continue
		}
		mac, err := net.ParseMAC(text)
		if err != nil || len(mac) != 6 {
			return fmt.Errorf("%q is no MAC address; give some such as 12:34:56:78:9a:bc", text)
		}
		*m = append(*m, mac)
	}
	return nil
}

func (*macsValue) Type() string { return "MACs" }
