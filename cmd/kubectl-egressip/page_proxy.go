package main

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"strings"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

const (
	// pagePath is the path of the page at the controller, and the non-resource URL that one must be
	// allowed to get.
	pagePath = "/page"
	// dialPageWithin limits the time to reach one pod, and answerPageWithin that until it begins to answer.
	dialPageWithin   = 10 * time.Second
	answerPageWithin = 15 * time.Second
)

func newPageWay(c client.Reader, r *reacher) *pageWay {
	w := &pageWay{client: c, reach: r, now: time.Now, silent: make(map[string]time.Time)}
	w.transport = &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return w.dial(ctx) },
		// See reacher: the tunnel ends in the pod.
		TLSClientConfig:     &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12}, //nolint:gosec // the certificate proves nothing
		MaxIdleConnsPerHost: 4, IdleConnTimeout: 20 * time.Second,
		TLSHandshakeTimeout: dialPageWithin, ResponseHeaderTimeout: answerPageWithin,
	}
	return w
}

// dial connects to the first pod of the controller that can be reached.
func (w *pageWay) dial(ctx context.Context) (net.Conn, error) {
	pods, err := w.controllerPods(ctx)
	if err != nil {
		return nil, err
	}
	var errs []error
	for i := range pods {
		c, err := w.dialPod(ctx, &pods[i])
		w.mu.Lock()
		if err == nil {
			delete(w.silent, pods[i].Name)
		} else {
			w.silent[pods[i].Name] = w.now()
			errs = append(errs, fmt.Errorf("pod %s/%s: %w", pods[i].Namespace, pods[i].Name, err))
		}
		w.mu.Unlock()
		if err == nil {
			return c, nil
		}
	}
	return nil, errors.Join(errs...)
}

func (w *pageWay) dialPod(ctx context.Context, pod *corev1.Pod) (net.Conn, error) {
	port, err := endpointPort(pod)
	if err != nil {
		return nil, err
	}
	// The tunnel is given up if it takes long to be made, and lives longer than that.
	making, cancel := context.WithTimeout(ctx, dialPageWithin)
	defer cancel()
	return w.reach.dial(making, w.reach.cfg, pod, port)
}

// RoundTrip sends a request to a pod of the controller, with a token. A connection that does not
// answer is not used again, nor are others to the same pod.
func (w *pageWay) RoundTrip(r *http.Request) (*http.Response, error) {
	token, err := w.token(r.Context())
	if err != nil {
		return nil, err
	}
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+token)
	response, err := w.transport.RoundTrip(r)
	if err != nil {
		w.transport.CloseIdleConnections()
		return nil, notTLS(err)
	}
	if response.StatusCode == http.StatusUnauthorized {
		w.forget()
	}
	return response, nil
}

// token is one that is valid for a while.
func (w *pageWay) token(ctx context.Context) (string, error) {
	w.mu.Lock()
	namespace := w.namespace
	w.mu.Unlock()
	if namespace == "" {
		pods, err := w.controllerPods(ctx)
		if err != nil {
			return "", err
		}
		namespace = pods[0].Namespace
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.namespace = namespace
	if now := w.now(); now.Sub(w.issued) > renewAfter {
		clear(w.reach.tokens)
		w.issued = now
	}
	ctx, cancel := context.WithTimeout(ctx, dialPageWithin)
	defer cancel()
	return w.reach.token(ctx, namespace)
}

// forget has the next request ask for another token.
func (w *pageWay) forget() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.issued, w.namespace = time.Time{}, ""
}

// try gets the page once, to say what is missing before a browser is opened.
func (w *pageWay) try(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, reachWithin)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://egressip-operator"+pagePath+"/", http.NoBody)
	if err != nil {
		return err
	}
	response, err := w.RoundTrip(request)
	if err != nil {
		return fmt.Errorf("get the page: %w", err)
	}
	defer response.Body.Close()
	if err := pageProblem(response); err != nil {
		return fmt.Errorf("get the page: %w", err)
	}
	return nil
}

// pageProblem says what is missing where an answer is not the page's own; nil if it is.
func pageProblem(response *http.Response) error {
	if response.Header.Get("Content-Security-Policy") != "" {
		return nil
	}
	said, _ := io.ReadAll(io.LimitReader(response.Body, 4<<10))
	if response.StatusCode == http.StatusNotFound {
		return errors.New("the controller does not serve it: set controller.page.enabled=true in the chart (--page), or upgrade it")
	}
	return statusError{code: response.StatusCode, said: strings.TrimSpace(string(said))}
}

// pageProxy serves the page to the user's browser, and to nobody else: only at its own address, which
// other sites cannot make the browser use, and only below a secret path.
type pageProxy struct {
	host   string // 127.0.0.1:port
	secret string
	// once is the secret of the address that the browser is started with, where others on this machine
	// may see it: it is good for one request.
	once  atomic.Pointer[string]
	proxy http.Handler
}

func newPageProxy(host string, way *pageWay) *pageProxy {
	p := &pageProxy{host: host, secret: rand.Text()}
	p.once.Store(new(rand.Text()))
	p.proxy = &httputil.ReverseProxy{
		Transport: way, FlushInterval: -1, ErrorLog: log.New(io.Discard, "", 0),
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host, r.Out.Host = "https", "egressip-operator", ""
			r.Out.URL.Path, r.Out.URL.RawPath = strings.TrimPrefix(r.In.URL.Path, "/"+p.secret), ""
			for _, header := range []string{"Cookie", "Authorization", "Origin", "Referer"} {
				r.Out.Header.Del(header)
			}
		},
		ModifyResponse: pageProblem,
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			if r.Context().Err() != nil {
				return // the browser has gone
			}
			http.Error(w, "the controller's page cannot be reached at the moment: "+err.Error(), http.StatusBadGateway)
		},
	}
	return p
}

// address is where the page is.
func (p *pageProxy) address() string { return "http://" + p.host + "/" + p.secret + pagePath + "/" }

// onceAddress leads there once.
func (p *pageProxy) onceAddress() string { return "http://" + p.host + "/once/" + *p.once.Load() }

// ServeHTTP serves requests of the user's browser.
func (p *pageProxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	refuse := func(status int, why string) {
		h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Cache-Control", "no-store")
		http.Error(w, why, status)
	}
	site, origin := r.Header.Get("Sec-Fetch-Site"), r.Header.Get("Origin")
	switch {
	case r.Host != p.host:
		// A name that leads here may be another site's.
		refuse(http.StatusMisdirectedRequest, "the page is at http://"+p.host+" only")
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		h.Set("Allow", "GET, HEAD")
		refuse(http.StatusMethodNotAllowed, "the page can only be read")
	case site != "" && site != "none" && site != "same-origin", origin != "" && origin != "http://"+p.host:
		refuse(http.StatusForbidden, "another site asks for this: open the address itself")
	case strings.HasPrefix(r.URL.Path, "/once/"):
		if !p.takeOnce(strings.TrimPrefix(r.URL.Path, "/once/")) {
			refuse(http.StatusNotFound, "this address was good for one time: use the one that the command printed")
			return
		}
		h.Set("Cache-Control", "no-store")
		h.Set("Referrer-Policy", "no-referrer")
		http.Redirect(w, r, "/"+p.secret+pagePath+"/", http.StatusSeeOther)
	case !p.below(r.URL.Path):
		refuse(http.StatusNotFound, "the page is at the address that the command printed")
	default:
		p.proxy.ServeHTTP(w, r)
	}
}

// takeOnce reports whether a secret is the one for one request, which it is not again then.
func (p *pageProxy) takeOnce(secret string) bool {
	known := p.once.Load()
	return *known != "" && subtle.ConstantTimeCompare([]byte(secret), []byte(*known)) == 1 && p.once.CompareAndSwap(known, new(""))
}

// below reports whether a path is one of the page, below the secret.
func (p *pageProxy) below(path string) bool {
	secret, rest, ok := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	page := "/" + rest
	return ok && subtle.ConstantTimeCompare([]byte(secret), []byte(p.secret)) == 1 &&
		(page == pagePath || strings.HasPrefix(page, pagePath+"/")) && !strings.Contains(page, "/..")
}
