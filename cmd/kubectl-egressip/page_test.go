package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/egressip-operator/egressip-operator/internal/endpoint"
	"github.com/egressip-operator/egressip-operator/internal/testenv"
)

// pageNamespace is where the chart is installed.
func pageNamespace() client.Object {
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "egressip-system"}}
}

// playedPage is what a controller serves: its name, what it was asked with, and a stream.
func playedPage(name string, seen func(*http.Request)) endpoint.Guarded {
	return endpoint.Guarded{Path: pagePath, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen(r)
		w.Header().Set("Content-Security-Policy", "default-src 'none'")
		fmt.Fprintf(w, "%s %s?%s\n", name, r.URL.Path, r.URL.RawQuery)
		if r.URL.Path == pagePath+"/events" {
			http.NewResponseController(w).Flush()
			<-r.Context().Done()
		}
	})}
}

// pageRun is a run of the command.
type pageRun struct {
	address, once string
	host          string
	stop          func() error
}

// runPage runs the command's work until the test ends.
func runPage(t *testing.T, s server, r *reacher) pageRun {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	opened, done := make(chan string, 1), make(chan error, 1)
	printed, prints := io.Pipe()
	go func() {
		done <- servePage(ctx, prints, io.Discard, newPageWay(s, r), 0, func(address string) error { opened <- address; return nil })
		prints.Close()
	}()
	line, err := bufio.NewReader(printed).ReadString('\n')
	if err != nil {
		t.Fatalf("the page is not served: %v, %v", err, <-done)
	}
	go func() { _, _ = io.Copy(io.Discard, printed) }() // it ends with the command
	run := pageRun{address: strings.TrimSpace(line), once: <-opened}
	run.host = strings.Split(run.address, "/")[2]
	var result error
	run.stop = func() error {
		if cancel != nil {
			cancel()
			result, cancel = <-done, nil
		}
		return result
	}
	t.Cleanup(func() {
		if err := run.stop(); err != nil {
			t.Errorf("the command ended with %v", err)
		}
	})
	return run
}

// ask makes a request as a browser would, and returns the status and the text.
func (p pageRun) ask(ctx context.Context, method, address string, change func(*http.Request)) (status int, text string, err error) {
	request, err := http.NewRequestWithContext(ctx, method, address, http.NoBody)
	if err != nil {
		return 0, "", err
	}
	if change != nil {
		change(request)
	}
	response, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(request)
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return response.StatusCode, string(body) + response.Header.Get("Location"), err
}

// TestPage: the page comes through a real API server and a tunnel, with a token of the reader, to who
// has the address. Other sites, other names of this machine, other paths of the controller and all but
// reading are refused. A pod that is replaced is found by the next request.
//
// Mutants: page-for-any-host, page-for-other-sites, page-without-secret, page-once-for-ever.
func TestPage(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	s.create(t, pageNamespace())
	createReader(t, s, pagePath, "/record")
	startKubelet(t, s, "node2")
	var last atomic.Pointer[http.Request]
	note := func(r *http.Request) { last.Store(r) }
	secrets := endpoint.Guarded{Path: "/record", Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "a record") })}
	first := runningPod(t, s, "egressip-controller-1", "node2", componentController, serveEndpoint(t, s.env.Config, true, playedPage("first", note), secrets))
	r := reach(t, s.kubeconfig)
	testenv.Eventually(t, func(ctx context.Context) string { // RBAC takes a moment until it knows a binding
		if _, err := r.get(ctx, first, pagePath+"/"); err != nil {
			return err.Error()
		}
		return ""
	})
	run := runPage(t, s, r)
	wants := func(name string, want int, part, method, address string, change func(*http.Request)) {
		t.Helper()
		status, text, err := run.ask(t.Context(), method, address, change)
		if err != nil || status != want || !strings.Contains(text, part) {
			t.Errorf("%s is answered with %d (%v), want %d and %q: %s", name, status, err, want, part, text)
		}
	}
	header := func(key, value string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set(key, value) }
	}
	wants("the page", http.StatusOK, "first /page/?", http.MethodGet, run.address, nil)
	wants("a part of it", http.StatusOK, "first /page/namespaces/a b?q=x", http.MethodGet, run.address+"namespaces/a%20b?q=x", header("Sec-Fetch-Site", "same-origin"))
	wants("an address that was typed", http.StatusOK, "first", http.MethodGet, run.address, header("Sec-Fetch-Site", "none"))
	wants("one with credentials of others", http.StatusOK, "first", http.MethodGet, run.address, func(r *http.Request) {
		r.Header.Set("Cookie", "secret=1")
		r.Header.Set("Authorization", "Bearer mine")
	})
	if got := last.Load().Header; got.Get("Cookie") != "" || !strings.HasPrefix(got.Get("Authorization"), "Bearer ") || got.Get("Authorization") == "Bearer mine" {
		t.Errorf("the controller got %v", got)
	}
	for site := range map[string]bool{"cross-site": true, "same-site": true} {
		wants(site, http.StatusForbidden, "another site", http.MethodGet, run.address, header("Sec-Fetch-Site", site))
	}
	wants("another origin", http.StatusForbidden, "another site", http.MethodGet, run.address, header("Origin", "http://127.0.0.1:1"))
	for _, host := range []string{"rebound.example", "rebound.example:80", "localhost", "127.0.0.1"} {
		wants("host "+host, http.StatusMisdirectedRequest, "only", http.MethodGet, run.address, func(r *http.Request) { r.Host = host })
	}
	wants("a change", http.StatusMethodNotAllowed, "only be read", http.MethodPost, run.address, nil)
	root, secret := "http://"+run.host+"/", strings.Split(run.address, "/")[3]
	for _, path := range []string{"", "page/", "made-up/page/", secret, secret + "/", secret + "/record", secret + "/metrics", secret + "/pages", secret + "/page/../record", secret + "/page/%2e%2e/record", "once/", "once/made-up"} {
		wants("/"+path, http.StatusNotFound, "", http.MethodGet, root+path, nil)
	}
	wants("the browser's address", http.StatusSeeOther, "/"+secret+"/page/", http.MethodGet, run.once, header("Sec-Fetch-Site", "none"))
	wants("the browser's address again", http.StatusNotFound, "one time", http.MethodGet, run.once, nil)
	wants("no address after that", http.StatusNotFound, "", http.MethodGet, root+"once/", nil)

	// A stream goes on, and ends with the browser's request.
	ctx, leave := context.WithCancel(t.Context())
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, run.address+"events", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(response.Body).ReadString('\n'); err != nil || !strings.HasPrefix(line, "first /page/events") {
		t.Errorf("the stream begins with %q (%v)", line, err)
	}
	streamed := last.Load()
	leave()
	response.Body.Close()
	<-streamed.Context().Done()

	// The pod is replaced.
	runningPod(t, s, "egressip-controller-2", "node2", componentController, serveEndpoint(t, s.env.Config, true, playedPage("second", note)))
	if err := s.Delete(t.Context(), first, client.GracePeriodSeconds(0)); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, func(ctx context.Context) string {
		status, text, err := run.ask(ctx, http.MethodGet, run.address, nil)
		if err != nil || status != http.StatusOK || !strings.HasPrefix(text, "second") {
			return fmt.Sprintf("%d %s %v", status, text, err)
		}
		return ""
	})
	if err := run.stop(); err != nil {
		t.Errorf("it ended with %v", err)
	}
	if _, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", run.host); err == nil {
		t.Error("the port is still open after the end")
	}
}

// TestPageMissing: what is missing is said before a browser is opened.
func TestPageMissing(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	s.create(t, pageNamespace())
	startKubelet(t, s, "node2")
	r := reach(t, s.kubeconfig)
	fails := func(parts ...string) {
		t.Helper()
		testenv.Eventually(t, func(ctx context.Context) string {
			err := servePage(ctx, io.Discard, io.Discard, newPageWay(s, r), 0, func(string) error { return errors.New("a browser was opened") })
			for _, part := range parts {
				if err == nil || !strings.Contains(err.Error(), part) {
					return fmt.Sprintf("error %v, want %q in it", err, part)
				}
			}
			return ""
		})
	}
	fails("is the operator installed")
	port := serveEndpoint(t, s.env.Config, true, endpoint.Guarded{Path: "/record", Handler: http.NotFoundHandler()})
	pod := runningPod(t, s, "egressip-controller-1", "node2", componentController, port)
	fails("reader.enabled=true")
	createReader(t, s, "/record")
	fails("controller.page.enabled=true")
	if err := s.Delete(t.Context(), pod, client.GracePeriodSeconds(0)); err != nil {
		t.Fatal(err)
	}
	runningPod(t, s, "egressip-controller-2", "node2", componentController, serveEndpoint(t, s.env.Config, true, playedPage("second", func(*http.Request) {})))
	fails("status 403", "ClusterRole egressip-reader")
}

// TestPageTokens: a token is renewed before it ends, and when the controller does not know it.
func TestPageTokens(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	s.create(t, pageNamespace())
	createReader(t, s, pagePath)
	runningPod(t, s, "egressip-controller-1", "node2", componentController, 1)
	way := newPageWay(s, reach(t, s.kubeconfig))
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	way.now = func() time.Time { return now }
	take := func() string {
		t.Helper()
		token, err := way.token(t.Context())
		if err != nil || token == "" {
			t.Fatalf("token %q, %v", token, err)
		}
		return token
	}
	first := take()
	now = now.Add(renewAfter - time.Second)
	if take() != first {
		t.Error("another token was asked for although the first is valid")
	}
	now = now.Add(2 * time.Second)
	second := take()
	if second == first {
		t.Error("the token that is about to end is still used")
	}
	way.forget()
	if take() == second {
		t.Error("a token that the controller does not know is still used")
	}
}
