// Package node is what runs inside a node of the test bed: the step into the
// node's own namespaces and cgroup, and its first process.
//
// A node is a process tree on the machine's own root file system. What would
// collide with the machine, or with another node, is private to its mount
// namespace: /run, /sys, the directories of containerd and the kubelet, and
// copy-on-write views of /etc and /usr/sbin, so that each node has its own CNI
// configuration and its own choice of iptables backend and the machine's files
// stay as they are.
//
// Killing the first process is the node's power switch: the kernel then kills
// every process of its PID namespace, containers included.
package node
