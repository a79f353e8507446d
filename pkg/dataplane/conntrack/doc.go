// Package conntrack lists and deletes tracked connections, and makes the near end
// of a TCP connection send.
//
// It knows no egress IPs: the caller says which connections to delete. It keeps
// no state.
package conntrack
