package agent

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/egressip-operator/egressip-operator/pkg/live"
)

// playedKernel is looked at. Each look takes some time of a clock.
type playedKernel struct {
	clock *clocktesting.FakeClock
	takes time.Duration
	err   error
	asked []live.Query
	// enter is called in each look.
	enter func()
}

func (k *playedKernel) Live(_ context.Context, q live.Query) (live.Host, error) {
	k.asked = append(k.asked, q)
	k.clock.Step(k.takes)
	if k.enter != nil {
		k.enter()
	}
	return live.Host{Backend: "nftables"}, k.err
}

func newPlayedLooks() (*looks, *playedKernel) {
	clock := clocktesting.NewFakeClock(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	k := &playedKernel{clock: clock, takes: 100 * time.Millisecond}
	return newLooks(logr.Discard(), clock, "n1", k), k
}

func getLive(ctx context.Context, l *looks, query string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	l.ServeHTTP(w, httptest.NewRequestWithContext(ctx, http.MethodGet, LivePath+"?"+query, http.NoBody))
	return w
}

// TestLooksAnswer: a question is passed on as it was asked; one that makes no sense is refused with
// what is wrong, and the kernel is not looked at; so is an error reported.
func TestLooksAnswer(t *testing.T) {
	l, k := newPlayedLooks()
	w := getLive(t.Context(), l, "pod=10.244.1.5&sender=true&via=192.168.7.12")
	var host live.Host
	if err := json.Unmarshal(w.Body.Bytes(), &host); err != nil || w.Code != http.StatusOK || host.Node != "n1" || host.Backend != "nftables" {
		t.Errorf("answered with %d, %+v, %v", w.Code, host, err)
	}
	if q := k.asked[0]; q.Pod != netip.MustParseAddr("10.244.1.5") || !q.Sender || len(q.Via) != 1 || q.To != live.Somewhere(q.Pod) {
		t.Errorf("the kernel was asked %+v", q)
	}
	if w := getLive(t.Context(), l, "pod=web-1"); w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), `pod="web-1"`) || len(k.asked) != 1 {
		t.Errorf("a bad question is answered with %d: %s", w.Code, w.Body)
	}
	k.clock.Step(time.Second)
	k.err = errors.New("no such device")
	if w := getLive(t.Context(), l, "pod=10.244.1.5"); w.Code != http.StatusServiceUnavailable || !strings.Contains(w.Body.String(), "no such device") {
		t.Errorf("a failure is answered with %d: %s", w.Code, w.Body)
	}
}

// TestLooksAreBounded: looks rest as long as they took, and whoever comes while enough wait is told
// to come again.
//
// Mutants: looks-without-rest, looks-without-limit.
func TestLooksAreBounded(t *testing.T) {
	l, k := newPlayedLooks()
	getLive(t.Context(), l, "pod=10.244.1.5")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan int)
	go func() { done <- getLive(ctx, l, "pod=10.244.1.5").Code }()
	for !k.clock.HasWaiters() {
		select {
		case code := <-done:
			t.Fatalf("a look right after another was answered at once, with %d", code)
		default:
		}
	}
	k.clock.Step(k.takes)
	if code := <-done; code != http.StatusOK {
		t.Errorf("after the rest it is answered with %d", code)
	}
	cancel()
	k.clock.Step(time.Second)
	for range maxWaiting {
		l.waiting <- struct{}{}
	}
	asked := len(k.asked)
	if w := getLive(t.Context(), l, "pod=10.244.1.5"); w.Code != http.StatusTooManyRequests || w.Header().Get("Retry-After") == "" || len(k.asked) != asked {
		t.Errorf("one too many is answered with %d", w.Code)
	}
}
