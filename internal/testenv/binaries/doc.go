// Package binaries builds the programs that tests and the Makefile need, from the
// versions that hack/tools/go.mod pins: a Kubernetes control plane and node,
// helm, and the linters. The daemons of CNI plugins are pinned below hack/cni, and
// built only for a test bed that uses one.
//
// Nothing is downloaded but Go modules, and nothing is installed into the
// system. The programs lie in the user's cache directory, under a name made
// from everything that decides their contents, so that another version never
// mixes with an old one:
//
//	<os.UserCacheDir()>/egressip-operator/tools-<hash>/kube-apiserver
//
// Concurrency: any number of processes may call Dir at once; a file lock makes
// one of them build while the others wait, and a program appears under its
// name only when it is whole.
package binaries
