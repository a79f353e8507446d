// Package feature lists what the data plane uses of the kernel although some supported
// kernels lack it, and what is lost on these.
//
// It is the one place for versions and words: docs/kernels.md has the same table, and the
// agent reports from it what it does without. All of it is pure: what a kernel has is
// found out elsewhere, by trying, and given as [Kernel].
package feature
