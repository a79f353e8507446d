package apiconn

import (
	"fmt"
	"net"
	"os"
	"time"

	"k8s.io/client-go/rest"
)

// dialTimeout bounds one attempt to connect. TCP retransmits lost packets of an attempt
// after one second, and doubles that time with each of them.
const dialTimeout = 3 * time.Second

// The health check of HTTP/2 connections, in seconds: the client pings a connection that
// received nothing for idle, and closes it if no answer comes within pingTimeout. An idle
// connection costs the API server one ping every two seconds.
const (
	idle        = "2"
	pingTimeout = "3"
)

// CheckHealth sets the process's defaults for the health check, in the environment
// variables that client-go reads. Variables that the administrator has set stay. Call it
// before the first client is created.
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

// BoundDials limits the time of each attempt to connect, so that the next one starts
// soon.
func BoundDials(cfg *rest.Config) { cfg.Dial = (&net.Dialer{Timeout: dialTimeout}).DialContext }
