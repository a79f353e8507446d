// Package rules holds the packet-filter rules of a host as a value.
//
// It has two parts. The model ([Rule], [Match], [Action], [Ruleset]) says what
// a rule does, in netfilter's terms and in the syntax of no tool. The content
// ([Build]) says which rules a host has. A backend, such as package iptables,
// renders the model: every Match and every Action.
//
// Every match and action of the model must be expressible in iptables and in
// nftables, but for what [Params] asks for. Content depends on [Params] alone: the
// same input gives the same rules. Whatever changes with pods and hosts is in sets,
// which rules refer to by name, so that rules rarely change.
//
// All values are plain data; functions are pure and may be called concurrently.
package rules
