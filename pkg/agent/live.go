package agent

import (
	"context"
	"encoding/json"
	"net/http"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/utils/clock"

	"github.com/egressip-operator/egressip-operator/pkg/live"
)

// LivePath is the non-resource URL of what the kernel has for a pod's packets.
const LivePath = "/live"

// Looks cost what a whole read of the kernel costs: one at a time, and after each a rest that is as
// long, so that they take at most half of one processor, whoever asks how often.
const (
	// maxWaiting is how many may wait for their turn, and how long.
	maxWaiting = 4
	waitAtMost = 5 * time.Second
	// maxRestOfLooks bounds the rest after a look.
	maxRestOfLooks = time.Second
)

// looker reads the kernel back.
type looker interface {
	Live(ctx context.Context, q live.Query) (live.Host, error)
}

// looks answers questions about what the kernel has.
type looks struct {
	log    logr.Logger
	clock  clock.Clock
	node   string
	kernel looker

	// waiting has room for those that wait, and the one that looks.
	waiting chan struct{}
	mu      sync.Mutex
	// rested is when the next look may begin.
	rested time.Time
}

func newLooks(log logr.Logger, c clock.Clock, node string, kernel looker) *looks {
	return &looks{log: log.WithName("live"), clock: c, node: node, kernel: kernel, waiting: make(chan struct{}, maxWaiting)}
}

// ServeHTTP answers with a live.Host as JSON.
func (l *looks) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	q, err := live.ParseQuery(r.URL.Query())
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	select {
	case l.waiting <- struct{}{}:
	default:
		tryLater(w)
		return
	}
	defer func() { <-l.waiting }()
	ctx, cancel := context.WithTimeout(r.Context(), waitAtMost)
	defer cancel()
	host, err := l.look(ctx, q)
	switch {
	case ctx.Err() != nil:
		tryLater(w)
	case err != nil:
		l.log.Error(err, "cannot look at the kernel for a client", "pod", q.Pod.String())
		http.Error(w, "the kernel could not be looked at: "+err.Error(), http.StatusServiceUnavailable)
	default:
		host.Node = l.node
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(host) // the client may have gone
	}
}

func tryLater(w http.ResponseWriter) {
	w.Header().Set("Retry-After", "1")
	http.Error(w, "others ask what the kernel has: try again in a second", http.StatusTooManyRequests)
}

// look takes its turn.
func (l *looks) look(ctx context.Context, q live.Query) (live.Host, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if rest := l.rested.Sub(l.clock.Now()); rest > 0 {
		t := l.clock.NewTimer(rest)
		defer t.Stop()
		select {
		case <-ctx.Done():
			return live.Host{}, ctx.Err()
		case <-t.C():
		}
	}
	began := l.clock.Now()
	host, err := l.kernel.Live(ctx, q)
	now := l.clock.Now()
	l.rested = now.Add(min(now.Sub(began), maxRestOfLooks))
	return host, err
}
