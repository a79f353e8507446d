package agent

import (
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"k8s.io/utils/clock"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane"
	"github.com/egressip-operator/egressip-operator/pkg/online"
)

// stuckAfter is how long a pass may take before the agent asks the kubelet for a
// restart. A first pass on a slow node with thousands of pods takes
// seconds; ending the agent is safe at any moment.
const stuckAfter = 2 * time.Minute

// unreadyAfter is how long passes may fail before the agent is not ready. A failure that
// the next passes mend says nothing.
const unreadyAfter = 30 * time.Second

// health is the state behind the health endpoints.
type health struct {
	clock clock.PassiveClock

	mu      sync.Mutex
	waiting string    // what the agent waits for before its first pass
	began   time.Time // of the pass that runs; zero between passes
	applied bool      // a pass has succeeded since the start
	lastErr error     // of the last pass
	since   time.Time // of the first of the passes that failed in a row up to now

	noHostSubnet bool           // of this node
	service      online.Service // found by the last pass
}

func (h *health) waitsFor(what string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.waiting = what
}

func (h *health) passBegins() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.waiting, h.began = "", h.clock.Now()
}

func (h *health) passEnds(noHostSubnet bool, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.began, h.noHostSubnet, h.lastErr = time.Time{}, noHostSubnet, err
	h.applied = h.applied || err == nil
	switch {
	case err == nil:
		h.since = time.Time{}
	case h.since.IsZero():
		h.since = h.clock.Now()
	}
}

// setService takes what the last pass found.
func (h *health) setService(s online.Service) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.service = s
}

// serviceOf converts what a pass found.
func serviceOf(r dataplane.Report, withdrawn bool) online.Service {
	s := online.Service{Withdrawn: withdrawn, Overlay: r.Overlay, Hosted: len(r.Hosted)}
	for _, h := range r.Hosted {
		switch {
		case h.Configured:
			s.Configured++
		case h.Taken:
			s.Taken++
		}
	}
	return s
}

// serving reports to other hosts whether they may send their packets here.
func (h *health) serving() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.service.Serves()
}

// live fails if the loop is stuck, so that a restart may help. An API server that
// cannot be reached is not such a reason.
func (h *health) live() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.began.IsZero() {
		return nil
	}
	if took := h.clock.Since(h.began); took > stuckAfter {
		return fmt.Errorf("a pass over the kernel has been running for %s", took.Round(time.Second))
	}
	return nil
}

// ready fails until the caches have synced and the kernel has been brought to
// the planned state once, while passes have failed for long, and while the node has no
// HostSubnet.
func (h *health) ready() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.waiting != "":
		return fmt.Errorf("waiting for %s", h.waiting)
	case !h.applied && h.lastErr != nil:
		return fmt.Errorf("the kernel is not as planned yet: %w", h.lastErr)
	case !h.applied:
		return errors.New("the first pass has not finished yet")
	case h.lastErr != nil && h.clock.Since(h.since) >= unreadyAfter:
		return fmt.Errorf("the kernel has not been as planned for %s: %w", h.clock.Since(h.since).Round(time.Second), h.lastErr)
	case h.noHostSubnet:
		return errors.New("there is no HostSubnet for this node, so it cannot host egress IPs: " +
			"the controller creates it from the Node; check that the controller runs")
	case h.service.Withdrawn:
		return errors.New("cut off from the API server and from most hosts, so this node has given up its egress IPs: " +
			"check its network")
	default:
		return nil
	}
}

// handler serves /healthz and /readyz: 200, or 503 with the reason in the body.
func (h *health) handler() http.Handler {
	mux := http.NewServeMux()
	for path, check := range map[string]func() error{"GET /healthz": h.live, "GET /readyz": h.ready} {
		mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) {
			if err := check(); err != nil {
				http.Error(w, err.Error(), http.StatusServiceUnavailable)
				return
			}
			fmt.Fprintln(w, "ok")
		})
	}
	return mux
}
