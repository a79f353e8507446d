// Package testenv has what the tests of all packages share: waiting, and
// addresses. The packages below it bring what only some tests need:
//
//	objects    builders for NetNamespace, HostSubnet, Node and Pod
//	apiserver  a real API server with its etcd, for one test
//	isolated   the tests of a package in network and mount namespaces of their own
//	binaries   the pinned Kubernetes binaries and linters, built where missing
//
// Nothing here imports a package of test/, and no production code imports
// anything of here.
//
// Concurrency: everything may be called from several tests at once.
package testenv
