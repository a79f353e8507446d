// Package bootunit makes systemd run a program on a node each time it boots, before
// anything starts pods.
//
// It writes two files and a link for each unit that must wait. Each file is written in
// one step, so that a boot at any moment finds the old state or the new one; only
// files that it wrote are ever deleted. Arguments that systemd would interpret are
// refused.
//
// A Unit holds no state. Concurrent calls for the same node are not safe.
package bootunit
