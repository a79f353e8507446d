package endpoint

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr/funcr"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
)

// TestTakenPort: a port that is taken is one warning, not an end; it is served when it
// is free.
//
// Mutants: taken-port-ends, taken-port-is-left.
func TestTakenPort(t *testing.T) {
	other, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var warnings atomic.Int32
	log := funcr.New(func(_, args string) {
		if strings.Contains(args, "a port is taken") {
			warnings.Add(1)
		}
	}, funcr.Options{})
	s := Health(log, other.Addr().String(), http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "ok") }))
	s.Listener.(*listener).pause = 10 * time.Millisecond
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Start(ctx) }()
	testenv.Eventually(t, func(context.Context) string {
		if warnings.Load() != 1 {
			return fmt.Sprintf("%d warnings", warnings.Load())
		}
		return ""
	})
	other.Close()
	testenv.Eventually(t, func(ctx context.Context) string {
		request, _ := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+other.Addr().String(), http.NoBody)
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			return err.Error()
		}
		return map[bool]string{false: response.Status}[response.Body.Close() == nil && response.StatusCode == http.StatusOK]
	})
	stop()
	if err := <-done; err != nil || warnings.Load() != 1 {
		t.Errorf("it ended with %v after %d warnings", err, warnings.Load())
	}
}

// TestEndsWithoutItsPort: a server that waits for its port ends.
func TestEndsWithoutItsPort(t *testing.T) {
	other, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	s := Health(funcr.New(func(string, string) {}, funcr.Options{}), other.Addr().String(), http.NotFoundHandler())
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Start(ctx) }()
	stop()
	if err := <-done; err != nil {
		t.Errorf("it ended with %v", err)
	}
}
