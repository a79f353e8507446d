// Package ipset makes, lists, changes and destroys ipsets.
//
// It knows no names of sets and no meaning of their entries. It speaks netlink
// itself where the library would be slow or would log each entry. It keeps no
// state; the calling thread's network namespace counts, which a handle that is
// passed must belong to.
package ipset
