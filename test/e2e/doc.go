// Package e2e asks what happens to packets: on a real cluster, with the
// operator installed by its chart, the way that an administrator would.
//
// Its tests need root, and build/image.tar and the binaries that "make image"
// makes; "make e2e" does both. Each test bed lives in network namespaces of its
// own and is taken down at the end.
package e2e
