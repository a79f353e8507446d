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

// Guarded is what is served besides metrics to clients that may get it.
type Guarded struct {
	// Path is the non-resource URL that a client must be allowed to get, such as /record.
	// Handler gets requests for it and for all paths below it, unchanged.
	Path    string
	Handler http.Handler
}

// Config says what is served, where, and which clients get it.
type Config struct {
	Log logr.Logger
	// Address is host:port.
	Address string
	// Secure serves HTTPS, with a certificate that the server makes itself, and asks the API
	// server who a client is and whether it may get the path that it asks for. Without it
	// metrics are served over HTTP to everyone, and nothing that is guarded.
	Secure bool
	// API is the API server, and Requests makes requests to it; only for Secure.
	API      *rest.Config
	Requests *http.Client
	// Guarded are served besides metrics. None is below another.
	Guarded []Guarded
}

// Metrics returns a server of the metrics in controller-runtime's registry, and of what is
// guarded. It answers GET and HEAD alone: whatever it serves changes nothing. An answer may
// take a minute; a handler of longer ones moves that by http.ResponseController.
func Metrics(c Config) (*manager.Server, error) {
	log := c.Log.WithName("metrics")
	handler := promhttp.HandlerFor(metrics.Registry, promhttp.HandlerOpts{ErrorHandling: promhttp.HTTPErrorOnError})
	var l net.Listener = newListener(log, "metrics", c.Address)
	guard := func(path string, next http.Handler) http.Handler {
		if path == metricsPath {
			return next
		}
		return http.HandlerFunc(notServed)
	}
	if c.Secure {
		a, err := newAccess(log, c.API, c.Requests)
		if err != nil {
			return nil, err
		}
		certificate, err := selfSigned(a.clock.Now())
		if err != nil {
			return nil, err
		}
		guard = a.guard
		// Without HTTP/2, whose streams a client could open and reset at will.
		l = tls.NewListener(l, &tls.Config{
			Certificates: []tls.Certificate{certificate}, NextProtos: []string{"http/1.1"}, MinVersion: tls.VersionTLS12,
		})
	}
	mux := http.NewServeMux()
	mux.Handle("GET "+metricsPath, guard(metricsPath, handler))
	for _, g := range c.Guarded {
		guarded := guard(g.Path, g.Handler)
		mux.Handle("GET "+g.Path, guarded)
		mux.Handle("GET "+g.Path+"/", guarded)
	}
	return server("metrics", l, mux), nil
}

// notServed answers where nobody can be told from anybody else.
func notServed(w http.ResponseWriter, _ *http.Request) {
	http.Error(w, "Forbidden: this is served over HTTPS to known clients only: set --metrics-secure=true (the chart's metrics.secure)", http.StatusForbidden)
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
