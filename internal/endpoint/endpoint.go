package endpoint

import (
	"crypto/tls"
	"net"
	"net/http"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
)

// shutdownWithin limits how long a server waits for its connections when it ends.
const shutdownWithin = 2 * time.Second

// None reports whether an address to listen on stands for none.
func None(address string) bool { return address == "" || address == "0" }

// Health returns a server of handler at address, host:port.
func Health(log logr.Logger, address string, handler http.Handler) *manager.Server {
	return server("health", newListener(log, "health", address), handler)
}

// Metrics returns a server of the metrics in controller-runtime's registry at address,
// host:port. If secure, it serves HTTPS with a certificate that it makes itself, and
// asks the API server at cfg who the client is and whether it may get /metrics. requests
// makes these requests.
func Metrics(log logr.Logger, address string, secure bool, cfg *rest.Config, requests *http.Client) (*manager.Server, error) {
	log = log.WithName("metrics")
	handler := promhttp.HandlerFor(metrics.Registry, promhttp.HandlerOpts{ErrorHandling: promhttp.HTTPErrorOnError})
	var l net.Listener = newListener(log, "metrics", address)
	if secure {
		a, err := newAccess(log, cfg, requests)
		if err != nil {
			return nil, err
		}
		certificate, err := selfSigned(a.clock.Now())
		if err != nil {
			return nil, err
		}
		handler = a.guard(handler)
		// Without HTTP/2, whose streams a client could open and reset at will.
		l = tls.NewListener(l, &tls.Config{
			Certificates: []tls.Certificate{certificate}, NextProtos: []string{"http/1.1"}, MinVersion: tls.VersionTLS12,
		})
	}
	mux := http.NewServeMux()
	mux.Handle("GET "+metricsPath, handler)
	return server("metrics", l, mux), nil
}

func server(name string, l net.Listener, handler http.Handler) *manager.Server {
	return &manager.Server{
		Name: name, Listener: l, ShutdownTimeout: new(shutdownWithin),
		Server: &http.Server{
			Handler: handler, MaxHeaderBytes: 64 << 10,
			ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: time.Minute, IdleTimeout: 90 * time.Second,
		},
	}
}
