package page

import (
	"context"
	"embed"
	"fmt"
	"html/template"
	"net/http"
	"strings"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/utils/clock"
)

// Path is the path of the page, and the non-resource URL that a client must be allowed to get.
const Path = "/page"

// policy is the Content-Security-Policy: the package's own files and nothing else, no inline
// code, and no text that becomes HTML by script.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; " +
	"frame-ancestors 'none'; base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

// watchEvery is how often objects that have changed are looked at while nobody looks at the page.
const watchEvery = time.Second

//go:embed assets
var assets embed.FS

// Config of a Page.
type Config struct {
	Log    logr.Logger
	Clock  clock.WithTicker
	Source Source
	// Serving says in a few words which process answers.
	Serving func() string
}

// Page serves the page.
type Page struct {
	config    Config
	feed      *feed
	templates *template.Template
	handler   http.Handler
	// clients has room for clientsAtMost.
	clients chan struct{}
	// over is closed when the page ends.
	over chan struct{}
}

// New returns a Page. Streams end when Start's context does.
func New(c Config) (*Page, error) {
	p := &Page{config: c, feed: newFeed(c.Source, c.Clock), clients: make(chan struct{}, clientsAtMost), over: make(chan struct{})}
	var err error
	if p.templates, err = template.New("").Funcs(functions()).ParseFS(assets, "assets/*.html"); err != nil {
		return nil, fmt.Errorf("read the page's templates: %w", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+Path+"/{$}", p.overview)
	mux.HandleFunc("GET "+Path+"/namespaces/{name}", p.group(kindNamespace))
	mux.HandleFunc("GET "+Path+"/egressips/{name}", p.group(kindEgressIP))
	mux.HandleFunc("GET "+Path+"/hosts/{name}", p.host)
	mux.HandleFunc("GET "+Path+"/events", p.stream)
	for _, name := range []string{"page.css", "dom.js", "picture.js", "live.js", "main.js", "icon.svg"} {
		content, err := assets.ReadFile("assets/" + name)
		if err != nil {
			return nil, fmt.Errorf("read the page's files: %w", err)
		}
		mux.HandleFunc("GET "+Path+"/assets/"+name, asset(name, content))
	}
	mux.HandleFunc("GET "+Path, func(w http.ResponseWriter, _ *http.Request) {
		// Relative: a proxy may serve it elsewhere.
		w.Header().Set("Location", strings.TrimPrefix(Path, "/")+"/")
		w.WriteHeader(http.StatusTemporaryRedirect)
	})
	mux.HandleFunc("GET "+Path+"/", func(w http.ResponseWriter, r *http.Request) {
		p.notFound(w, r, "There is no such page.")
	})
	p.handler = guarded(mux)
	return p, nil
}

// Changed notes that objects may have changed.
func (p *Page) Changed() { p.feed.touch() }

// NeedLeaderElection is false: all replicas know the same objects.
func (*Page) NeedLeaderElection() bool { return false }

// Start looks at the objects whenever they have changed, so that no move is missed while nobody looks at
// the page, and ends all streams when ctx ends.
func (p *Page) Start(ctx context.Context) error {
	defer close(p.over)
	looks := p.config.Clock.NewTicker(watchEvery)
	defer looks.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-looks.C():
			if s := p.feed.current(ctx); s.problem != "" {
				p.config.Log.V(1).Info("the page is not up to date", "error", s.problem)
			}
		}
	}
}

// ServeHTTP serves everything below Path.
func (p *Page) ServeHTTP(w http.ResponseWriter, r *http.Request) { p.handler.ServeHTTP(w, r) }

// guarded lets only requests through that read, and sets the headers of every answer.
func guarded(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			h.Set("Allow", "GET, HEAD")
			http.Error(w, "the page can only be read", http.StatusMethodNotAllowed)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func asset(name string, content []byte) http.HandlerFunc {
	kind := "text/css; charset=utf-8"
	switch {
	case strings.HasSuffix(name, ".js"):
		kind = "text/javascript; charset=utf-8"
	case strings.HasSuffix(name, ".svg"):
		kind = "image/svg+xml"
	}
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", kind)
		_, _ = w.Write(content) // a client that is gone needs none
	}
}
