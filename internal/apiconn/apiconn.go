// Package apiconn has connections to the API server given up soon after the network was
// cut.
//
// A watch only listens. When the network is cut for a few seconds, the API server's TCP
// waits longer and longer before it sends again what was lost, and the one that listens
// notices nothing: it goes on for ten seconds and more with what it knew before, and
// client-go asks after 30 seconds of silence.
package apiconn

import (
	"fmt"
	"net"
	"os"
	"time"

	"k8s.io/client-go/rest"
)

// dialTimeout bounds one attempt to connect, between whose packets TCP waits longer and
// longer, too.
const dialTimeout = 3 * time.Second

// The health check of HTTP/2 connections, in seconds: a connection that brought nothing
// for idle is asked by a ping, and given up where no answer comes within pingTimeout. A
// ping every two seconds costs the API server next to nothing.
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
