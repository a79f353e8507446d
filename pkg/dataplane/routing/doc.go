// Package routing keeps two routing tables, and the policy rules that lead marked
// packets into them.
//
// A rule or a route is ours if it has our protocol number and one of our tables, or, of
// rules, leads to table local; where others use these tables that is an error, and theirs are never changed.
// The package keeps no state; a netlink handle says which network namespace is
// meant.
package routing
