// Package live has what the kernels of hosts have for the packets of one pod, as values, and
// compares it with what they should have.
//
// A host that is asked (Query) reads its kernel (Host), and never answers from what it meant to
// do. Whoever asked knows from the objects of the API what is meant (Want), and lays both side by
// side (Compare). The package does no I/O. Its values are safe for concurrent use.
package live
