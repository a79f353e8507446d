// Package iptables puts rules into the kernel with the iptables commands.
//
// It renders the model of package rules as text, in exactly the form in which
// iptables-save prints it; reads what tables hold; computes the difference; and
// changes each table in one transaction. It knows which chains are ours, by
// their prefix, and where our jumps go among the rules of other software. What
// the rules are for, it does not know.
//
// Text is compared with text: a rule that iptables prints in another form than
// Render would be written again in each pass. The tests against the kernel in
// package dataplane show that none is.
//
// A [Driver] must not be used by two goroutines at once. All else is pure.
package iptables
