// Package apiconn makes connections to the API server recover soon after the network was
// cut or the API server was away.
//
// A watch only listens. After the network was cut, it reports nothing until something
// notices that its connection is dead; by default, client-go checks that after 30 seconds
// without data. Afterwards, client-go waits up to a minute between two attempts.
//
// CheckHealth changes the process's environment: call it once, before other goroutines
// run. Everything else is safe for concurrent use.
package apiconn
