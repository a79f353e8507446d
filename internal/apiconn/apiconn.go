// Package apiconn has connections to the API server given up soon after the network was
// cut.
//
// A watch only listens: after the network was cut, it tells of nothing until somebody
// notices that its connection is dead. By default client-go asks after 30 seconds without
// a word.
package apiconn

import (
	"fmt"
	"net"
	"os"
	"time"

	"k8s.io/client-go/rest"
)

// dialTimeout bounds one attempt to connect: TCP doubles the pause between those packets
// of it that are lost, from a second on.
const dialTimeout = 3 * time.Second

// The health check of HTTP/2 connections, in seconds: a connection that brought nothing
// for idle is asked by a ping, and given up where no answer comes within pingTimeout. So
// an idle connection costs the API server a ping every two seconds.
const (
	idle        = "2"
	pingTimeout = "3"
)

// CheckHealth sets the process's defaults for the health check, by the variables that
// client-go reads; what the administrator has set stays. Call it before the first client
// is made.
func CheckHealth() error {
	for name, value := range map[string]string{"HTTP2_READ_IDLE_TIMEOUT_SECONDS": idle, "HTTP2_PING_TIMEOUT_SECONDS": pingTimeout} {
		if _, given := os.LookupEnv(name); given {
			continue
		}
		if err := os.Setenv(name, value); err != nil {
			return fmt.Errorf("set the health check of connections to the API server: %w", err)
		}
	}
	return nil
}

// BoundDials has attempts to connect given up soon, to begin anew.
func BoundDials(cfg *rest.Config) { cfg.Dial = (&net.Dialer{Timeout: dialTimeout}).DialContext }
