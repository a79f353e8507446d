package page

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr/testr"
	"k8s.io/utils/clock"
	clocktesting "k8s.io/utils/clock/testing"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/internal/testenv/objects"
)

func newTestPage(t *testing.T, source Source, c clock.WithTicker) *Page {
	t.Helper()
	p, err := New(Config{Log: testr.New(t), Clock: c, Source: source, Serving: func() string { return "served by <node1>" }})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *Page) get(t *testing.T, method, path string) *http.Response {
	t.Helper()
	w := httptest.NewRecorder()
	p.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), method, path, http.NoBody))
	return w.Result()
}

// TestHeaders: every answer, also one that refuses, has the headers that keep all but the page's own
// files out, and nothing but reading is allowed.
//
// Mutant: page-without-policy.
func TestHeaders(t *testing.T) {
	t.Parallel()
	source := &played{}
	source.set(objects.NetNamespace("shop", 1))
	source.in.HostSubnets = []v1.HostSubnet{host("node1", "192.168.7.11")}
	p := newTestPage(t, source, clock.RealClock{})
	over, end := context.WithCancel(t.Context())
	end()
	if err := p.Start(over); err != nil { // streams end at once
		t.Fatal(err)
	}
	for path, status := range map[string]int{
		"/page": http.StatusTemporaryRedirect, "/page/": http.StatusOK, "/page/namespaces/shop": http.StatusOK, "/page/hosts/node1": http.StatusOK,
		"/page/namespaces/none": http.StatusNotFound, "/page/hosts/none": http.StatusNotFound, "/page/egressips/none": http.StatusNotFound,
		"/page/other": http.StatusNotFound, "/page/assets/": http.StatusNotFound, "/page/assets/layout.html": http.StatusNotFound, "/page/namespaces/a/b": http.StatusNotFound,
		"/page/events": http.StatusOK, "/page/assets/page.css": http.StatusOK, "/page/assets/main.js": http.StatusOK, "/page/assets/icon.svg": http.StatusOK,
	} {
		for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodOptions} {
			r := p.get(t, method, path)
			want := status
			if method != http.MethodGet && method != http.MethodHead {
				want = http.StatusMethodNotAllowed
			}
			if r.StatusCode != want {
				t.Errorf("%s %s is answered with %s, want %d", method, path, r.Status, want)
			}
			for header, value := range map[string]string{
				"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store", "Referrer-Policy": "no-referrer", "X-Frame-Options": "DENY",
				"Cross-Origin-Resource-Policy": "same-origin", "Cross-Origin-Opener-Policy": "same-origin",
				"Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; " +
					"frame-ancestors 'none'; base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
			} {
				if got := r.Header.Get(header); got != value {
					t.Errorf("%s %s has %s: %q, want %q", method, path, header, got, value)
				}
			}
			if cookies := r.Cookies(); len(cookies) > 0 {
				t.Errorf("%s %s sets %v", method, path, cookies)
			}
		}
	}
	if to := p.get(t, http.MethodGet, "/page").Header.Get("Location"); to != "page/" {
		t.Errorf("/page leads to %q, want page/, which holds below any path", to)
	}
	for file, kind := range map[string]string{"page.css": "text/css; charset=utf-8", "main.js": "text/javascript; charset=utf-8", "icon.svg": "image/svg+xml"} {
		if got := p.get(t, http.MethodGet, "/page/assets/"+file).Header.Get("Content-Type"); got != kind {
			t.Errorf("%s is %q, want %q", file, got, kind)
		}
	}
}

// TestNothingFromElsewhere: no file names an address, so that a cluster without a way out has the whole page.
func TestNothingFromElsewhere(t *testing.T) {
	t.Parallel()
	entries, err := assets.ReadDir("assets")
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		content, err := assets.ReadFile("assets/" + entry.Name())
		if err != nil {
			t.Fatal(err)
		}
		text := strings.ReplaceAll(string(content), "http://www.w3.org/2000/svg", "")
		for _, foreign := range []string{"http:", "https:", "src=\"/", "href=\"/", "@import", "innerHTML", "insertAdjacentHTML", "document.write", "eval(", "onclick=", "style=\""} {
			if strings.Contains(text, foreign) {
				t.Errorf("%s has %s", entry.Name(), foreign)
			}
		}
	}
}

// TestEnds: streams end with the page.
func TestEnds(t *testing.T) {
	t.Parallel()
	c := clocktesting.NewFakeClock(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	p := newTestPage(t, &played{}, c)
	ctx, stop := context.WithCancel(t.Context())
	ended, streamed := make(chan error, 1), make(chan struct{})
	go func() { ended <- p.Start(ctx) }()
	go func() {
		defer close(streamed)
		p.ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/page/events", http.NoBody))
	}()
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	<-streamed
	if p.NeedLeaderElection() {
		t.Error("a replica that does not lead serves no page")
	}
}
