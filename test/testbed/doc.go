// Package testbed makes a real Kubernetes cluster on one machine, out of
// network namespaces, for tests and for people.
//
//	                       LAN 192.168.7.0/24 (a bridge)
//	  ┌──────────┬────────────┬──────────┬──────────┬──────────┐
//	 .1         .10          .11        .12        .13        .60
//	router  control-plane   node1      node2      node3     lanhost
//	  │      etcd, API      kubelet, containerd,            no node: a
//	  │      server, ...    kube-proxy, pods                neighbour
//	 10.1.8.1               10.254.N.0/24
//	  │
//	 10.1.8.72 bastion: outside the cluster; HTTP and UDP echo on 8080 with an
//	           access log, TCP echo on 8081
//
// Each place is a network namespace, and each node has its own mount, PID, UTS,
// IPC and cgroup namespaces too; the programs are those of internal/testenv/binaries. On
// nodes rp_filter is strict. Nothing is shared with the machine's own network
// but one listening socket on 127.0.0.1, through which the kubeconfig reaches
// the API server, so that several test beds with different Options.Prefix
// run side by side.
//
// With Options.DualStack all of these have addresses of IPv6, too: the LAN is fd00:7::/64,
// pods are in fd00:254:0:N::/64, the bastion is fd00:1:8::72. With Options.IPv6Only they have
// these alone: no interface but the loopback ones has an address of IPv4.
//
// Pods are connected by a plain plugin and static routes, or by a CNI with a daemon on each
// node (Options.CNI): that starts once all Nodes have their podCIDR, says what it does in
// nodes/NAME/, and is waited for until nodes have routes to each other's pods.
//
// Ownership: every object that a test bed makes has its prefix in its name, or
// lies in a namespace, cgroup or directory that has. Down removes these, Up
// does so first with what a killed run has left. Processes are known by the
// network namespace that they are in, or by process id and start time.
//
// Concurrency: a Cluster may be used by several goroutines, but only one at a
// time may change one node's power or the control plane.
package testbed
