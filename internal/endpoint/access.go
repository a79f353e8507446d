package endpoint

import (
	"context"
	"crypto/sha256"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/go-logr/logr"
	authn "k8s.io/api/authentication/v1"
	authz "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	authnclient "k8s.io/client-go/kubernetes/typed/authentication/v1"
	authzclient "k8s.io/client-go/kubernetes/typed/authorization/v1"
	"k8s.io/client-go/rest"
	"k8s.io/utils/clock"
)

const (
	metricsPath = "/metrics"
	// askWithin limits how long the API server may take for both of its answers.
	askWithin = 5 * time.Second
	// askAtOnce limits the number of clients about which the API server is asked at the
	// same time. Others are refused meanwhile, so that a flood of made-up tokens does not
	// become a flood of requests.
	askAtOnce = 4
	// yesFor and noFor are how long an answer is used without another question.
	yesFor, noFor = time.Minute, 10 * time.Second
	// staleFor is how long a yes is used where the API server does not answer: this is
	// when an administrator needs the metrics most.
	staleFor = time.Hour
	// knownAtMost limits the answers that are remembered. A cluster has a few scrapers, and
	// a few people who look.
	knownAtMost = 256
)

// verdict is what a client may do.
type verdict int

const (
	unknown   verdict = iota // its token belongs to no user
	forbidden                // it may not get what it asks for
	allowed
)

// access decides who gets what is served under each path, and remembers it for a while.
type access struct {
	log   logr.Logger
	clock clock.PassiveClock
	// ask has the API server decide about a non-resource URL.
	ask    func(ctx context.Context, token, path string) (verdict, error)
	asking chan struct{} // has room for askAtOnce

	mu    sync.Mutex
	known map[question]answer
}

// question is what the API server was asked: whether who has a token may get a path.
type question struct {
	token [sha256.Size]byte // its hash: tokens are secrets
	path  string
}

// answer is a verdict of the API server, and when it was given.
type answer struct {
	verdict verdict
	at      time.Time
}

func newAccess(log logr.Logger, cfg *rest.Config, requests *http.Client) (*access, error) {
	tokens, err := authnclient.NewForConfigAndClient(cfg, requests)
	if err != nil {
		return nil, fmt.Errorf("set up the authentication of clients: %w", err)
	}
	rights, err := authzclient.NewForConfigAndClient(cfg, requests)
	if err != nil {
		return nil, fmt.Errorf("set up the authorization of clients: %w", err)
	}
	return &access{
		log: log, clock: clock.RealClock{}, asking: make(chan struct{}, askAtOnce), known: make(map[question]answer),
		ask: reviewer{tokens.TokenReviews(), rights.SubjectAccessReviews()}.ask,
	}, nil
}

// guard lets only requests of those clients through that may get a path.
func (a *access) guard(path string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
		token = strings.TrimSpace(token)
		if !strings.EqualFold(scheme, "Bearer") || token == "" {
			unauthorized(w)
			return
		}
		v, err := a.decide(r.Context(), token, path)
		switch {
		case err != nil:
			a.log.V(1).Info("a client could not be authenticated", "path", path, "error", err.Error())
			http.Error(w, "the API server, which knows who may get "+path+", cannot be asked", http.StatusServiceUnavailable)
		case v == unknown:
			unauthorized(w)
		case v == forbidden:
			http.Error(w, "Forbidden: no role allows to get the non-resource URL "+path, http.StatusForbidden)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

func unauthorized(w http.ResponseWriter) {
	w.Header().Set("WWW-Authenticate", "Bearer")
	http.Error(w, "Unauthorized: give the bearer token of a user or ServiceAccount of this cluster", http.StatusUnauthorized)
}

// decide returns whether the client with a token may get a path.
func (a *access) decide(ctx context.Context, token, path string) (verdict, error) {
	key := question{token: sha256.Sum256([]byte(token)), path: path}
	last, ok := a.recall(key)
	if ok && a.clock.Since(last.at) < last.verdict.lasts() {
		return last.verdict, nil
	}
	v, err := a.askBounded(ctx, token, path)
	if err != nil {
		if ok && last.verdict == allowed && a.clock.Since(last.at) < staleFor {
			return allowed, nil
		}
		return unknown, err
	}
	a.remember(key, answer{verdict: v, at: a.clock.Now()})
	return v, nil
}

// lasts is how long a verdict is used without another question.
func (v verdict) lasts() time.Duration {
	if v == allowed {
		return yesFor
	}
	return noFor
}

func (a *access) askBounded(ctx context.Context, token, path string) (verdict, error) {
	select {
	case a.asking <- struct{}{}:
	default:
		return unknown, fmt.Errorf("more than %d clients at a time", askAtOnce)
	}
	defer func() { <-a.asking }()
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	return a.ask(ctx, token, path)
}

func (a *access) recall(key question) (answer, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	found, ok := a.known[key]
	return found, ok
}

// remember stores an answer. If there are too many, it removes another one: a refusal
// first, so that made-up tokens do not displace a scraper's token, and then the oldest.
func (a *access) remember(key question, given answer) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.known[key] = given
	for len(a.known) > knownAtMost {
		var least question
		first := true
		for k, candidate := range a.known {
			if k != key && (first || candidate.lessUseful(a.known[least])) {
				least, first = k, false
			}
		}
		delete(a.known, least)
	}
}

func (a answer) lessUseful(than answer) bool {
	if yes, other := a.verdict == allowed, than.verdict == allowed; yes != other {
		return other
	}
	return a.at.Before(than.at)
}

// reviewer asks the API server.
type reviewer struct {
	tokens interface {
		Create(context.Context, *authn.TokenReview, metav1.CreateOptions) (*authn.TokenReview, error)
	}
	rights interface {
		Create(context.Context, *authz.SubjectAccessReview, metav1.CreateOptions) (*authz.SubjectAccessReview, error)
	}
}

// ask returns whether the client with a token may get a path.
func (r reviewer) ask(ctx context.Context, token, path string) (verdict, error) {
	review, err := r.tokens.Create(ctx, &authn.TokenReview{Spec: authn.TokenReviewSpec{Token: token}}, metav1.CreateOptions{})
	if err != nil {
		return unknown, fmt.Errorf("create a TokenReview: %w", err)
	}
	if !review.Status.Authenticated {
		return unknown, nil
	}
	user := review.Status.User
	spec := authz.SubjectAccessReviewSpec{
		User: user.Username, UID: user.UID, Groups: user.Groups,
		NonResourceAttributes: &authz.NonResourceAttributes{Path: path, Verb: "get"},
	}
	for key, values := range user.Extra {
		if spec.Extra == nil {
			spec.Extra = make(map[string]authz.ExtraValue)
		}
		spec.Extra[key] = authz.ExtraValue(values)
	}
	rights, err := r.rights.Create(ctx, &authz.SubjectAccessReview{Spec: spec}, metav1.CreateOptions{})
	switch {
	case err != nil:
		return unknown, fmt.Errorf("create a SubjectAccessReview for %s: %w", user.Username, err)
	case !rights.Status.Allowed:
		return forbidden, nil
	}
	return allowed, nil
}
