// Package nftables puts rules into the kernel as one nftables table of our own.
//
// It renders the model of package rules as expressions of the kernel, reads what the
// table holds, computes the difference, and makes it in one transaction: a packet
// sees all our rules as they were, or as they will be. Base chains have priorities of
// their own, so that the order in which other software adds its rules does not
// matter. The sets that rules refer to are in the same table. What the rules are for,
// the package does not know.
//
// Where the kernel has the flags owner and persist (Linux 6.9), nobody else can
// change the table while a [Driver] is open, "nft flush ruleset" included, and the
// table stays when it is closed.
//
// A rule is recognised by its comment, which holds a hash of its expressions: the
// kernel returns expressions in a form that differs from version to version.
//
// A Driver must not be used by two goroutines at once. All else is pure.
package nftables
