package testenv

import "net/netip"

// Addr is the address that a string writes. It panics if it writes none: the
// test is wrong then.
func Addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// Addrs are the addresses that strings write; nil for none.
func Addrs(list ...string) []netip.Addr { return each(list, Addr) }

// Prefix is the range that a string writes. It panics if it writes none.
func Prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

// Prefixes are the ranges that strings write; nil for none.
func Prefixes(list ...string) []netip.Prefix { return each(list, Prefix) }

func each[T any](list []string, parse func(string) T) (all []T) {
	for _, s := range list {
		all = append(all, parse(s))
	}
	return all
}
