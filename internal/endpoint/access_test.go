package endpoint

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/go-logr/logr"
	clocktesting "k8s.io/utils/clock/testing"
)

// apiServer is what an API server knows of tokens. Each test asks one at a time.
type apiServer struct {
	tokens map[string]verdict // about each path but secretPath, which nobody may get
	away   bool
	asked  int
}

func (s *apiServer) ask(_ context.Context, token, path string) (verdict, error) {
	s.asked++
	if s.away {
		return unknown, errors.New("connection refused")
	}
	if v := s.tokens[token]; path != secretPath || v != allowed {
		return v, nil
	}
	return forbidden, nil
}

const secretPath = "/secret"

func newAccessTo(s *apiServer) (*access, *clocktesting.FakeClock) {
	clock := clocktesting.NewFakeClock(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	return &access{
		log: logr.Discard(), clock: clock, ask: s.ask, asking: make(chan struct{}, askAtOnce), known: make(map[question]answer),
	}, clock
}

// get returns the status with which a request for metrics is answered.
func (a *access) get(authorization string) int { return a.getPath(metricsPath, authorization) }

func (a *access) getPath(path, authorization string) int {
	r := httptest.NewRequest(http.MethodGet, path, http.NoBody)
	if authorization != "" {
		r.Header.Set("Authorization", authorization)
	}
	w := httptest.NewRecorder()
	a.guard(path, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})).ServeHTTP(w, r)
	return w.Code
}

// TestAccess: who asks is known by a bearer token, and by nothing else.
func TestAccess(t *testing.T) {
	a, _ := newAccessTo(&apiServer{tokens: map[string]verdict{"scraper": allowed, "user": forbidden}})
	for authorization, want := range map[string]int{
		"":                    http.StatusUnauthorized,
		"Bearer":              http.StatusUnauthorized,
		"Bearer ":             http.StatusUnauthorized,
		"Basic scraper":       http.StatusUnauthorized,
		"scraper":             http.StatusUnauthorized,
		"Bearer made-up":      http.StatusUnauthorized,
		"Bearer user":         http.StatusForbidden,
		"Bearer scraper":      http.StatusOK,
		"bearer scraper":      http.StatusOK,
		"Bearer  scraper":     http.StatusOK,
		"Bearer scraper more": http.StatusUnauthorized,
	} {
		if got := a.get(authorization); got != want {
			t.Errorf("Authorization: %q is answered with %d, want %d", authorization, got, want)
		}
	}
}

// TestAccessIsRemembered: the API server is asked again after a while, and what it
// answered is used longer only where it does not answer.
//
// Mutants: revoked-for-ever, no-is-stale-too.
func TestAccessIsRemembered(t *testing.T) {
	s := &apiServer{tokens: map[string]verdict{"scraper": allowed, "user": forbidden}}
	a, clock := newAccessTo(s)
	expect := func(token string, status, asked int) {
		t.Helper()
		if got := a.get("Bearer " + token); got != status || s.asked != asked {
			t.Errorf("%s is answered with %d after %d questions, want %d after %d", token, got, s.asked, status, asked)
		}
	}
	expect("scraper", http.StatusOK, 1)
	clock.Step(yesFor - time.Second)
	expect("scraper", http.StatusOK, 1)
	expect("user", http.StatusForbidden, 2)
	clock.Step(noFor - time.Second)
	expect("user", http.StatusForbidden, 2)
	expect("scraper", http.StatusOK, 3)

	s.away = true
	clock.Step(noFor)
	expect("user", http.StatusServiceUnavailable, 4)
	expect("made-up", http.StatusServiceUnavailable, 5)
	clock.Step(staleFor - 2*noFor)
	expect("scraper", http.StatusOK, 6)
	clock.Step(2 * noFor)
	expect("scraper", http.StatusServiceUnavailable, 7)

	s.away = false
	s.tokens["scraper"], s.tokens["user"] = unknown, allowed
	expect("scraper", http.StatusUnauthorized, 8)
	expect("user", http.StatusOK, 9)
	s.away = true
	clock.Step(noFor)
	expect("scraper", http.StatusServiceUnavailable, 10)
}

// TestAccessRemembersLittle: made-up tokens fill no memory, and displace no scraper.
//
// Mutant: flood-displaces-scrapers.
func TestAccessRemembersLittle(t *testing.T) {
	s := &apiServer{tokens: map[string]verdict{"scraper": allowed}}
	a, clock := newAccessTo(s)
	a.get("Bearer scraper")
	for i := range 10 * knownAtMost {
		clock.Step(time.Millisecond)
		a.get(fmt.Sprintf("Bearer made-up-%d", i))
	}
	if len(a.known) > knownAtMost {
		t.Errorf("%d answers are remembered, want at most %d", len(a.known), knownAtMost)
	}
	asked := s.asked
	if got := a.get("Bearer scraper"); got != http.StatusOK || s.asked != asked {
		t.Errorf("the scraper is answered with %d after %d more questions, want 200 after none", got, s.asked-asked)
	}
	for i := range 2 * knownAtMost { // nor do scrapers
		s.tokens[fmt.Sprint(i)] = allowed
		a.get(fmt.Sprintf("Bearer %d", i))
	}
	if len(a.known) > knownAtMost {
		t.Errorf("%d answers are remembered, want at most %d", len(a.known), knownAtMost)
	}
}

// TestAccessAsksLittleAtOnce: as long as the API server has not answered for some, it is
// not asked for others, and those that were allowed before still are.
//
// Mutant: flood-goes-on-to-the-api-server.
func TestAccessAsksLittleAtOnce(t *testing.T) {
	s := &apiServer{tokens: map[string]verdict{"scraper": allowed}}
	a, clock := newAccessTo(s)
	a.get("Bearer scraper")
	clock.Step(yesFor)
	for range askAtOnce {
		a.asking <- struct{}{}
	}
	if got := a.get("Bearer made-up"); got != http.StatusServiceUnavailable || s.asked != 1 {
		t.Errorf("one more client is answered with %d after %d questions", got, s.asked)
	}
	if got := a.get("Bearer scraper"); got != http.StatusOK {
		t.Errorf("the scraper is answered with %d", got)
	}
	<-a.asking
	if got := a.get("Bearer made-up"); got != http.StatusUnauthorized || s.asked != 2 {
		t.Errorf("the client is answered with %d after %d questions", got, s.asked)
	}
}

// TestAccessIsByPath: who may get one path may not get another because of that, in any order.
//
// Mutants: one-yes-for-all-paths, asks-for-metrics-alone.
func TestAccessIsByPath(t *testing.T) {
	s := &apiServer{tokens: map[string]verdict{"user": allowed}}
	a, _ := newAccessTo(s)
	for _, path := range []string{metricsPath, secretPath, metricsPath, secretPath} {
		want := http.StatusOK
		if path == secretPath {
			want = http.StatusForbidden
		}
		if got := a.getPath(path, "Bearer user"); got != want {
			t.Errorf("%s is answered with %d, want %d", path, got, want)
		}
	}
	if s.asked != 2 {
		t.Errorf("%d questions, want one for each path", s.asked)
	}
}
