package page

import (
	"bufio"
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"k8s.io/utils/clock"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/internal/testenv/objects"
)

// streamOf opens a stream, which ends with the test or by stop. next returns its next event.
func streamOf(t *testing.T, address, last string) (response *http.Response, next func() event, stop func()) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address+"/page/events", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	if last != "" {
		request.Header.Set("Last-Event-ID", last)
	}
	response, err = http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(); response.Body.Close() })
	lines := bufio.NewReader(response.Body)
	next = func() (e event) {
		t.Helper()
		for {
			line, err := lines.ReadString('\n')
			if err != nil {
				t.Fatalf("the stream ended: %v", err)
			}
			key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
			switch key {
			case "id":
				e.id = value
			case "event":
				e.name = value
			case "data":
				e.data = append(e.data, value...)
			case "":
				return e
			}
		}
	}
	return response, next, stop
}

// untilNamed skips events of other names.
func untilNamed(next func() event, name string) event {
	for {
		if e := next(); e.name == name {
			return e
		}
	}
}

// TestStream: a stream begins with the whole, goes on with what changes, and who comes back gets what
// was missed.
func TestStream(t *testing.T) {
	t.Parallel()
	source := &played{}
	source.set(objects.NetNamespace("shop", 1))
	p := newTestPage(t, source, clock.RealClock{})
	server := httptest.NewServer(p)
	t.Cleanup(server.Close)
	response, next, stop := streamOf(t, server.URL, "")
	if kind := response.Header.Get("Content-Type"); kind != "text/event-stream; charset=utf-8" {
		t.Errorf("the stream is %q", kind)
	}
	first := next()
	if first.name != "all" || !strings.Contains(string(first.data), `"shop"`) || first.id == "" {
		t.Errorf("the first event is %s %s: %s", first.id, first.name, first.data)
	}
	if e := next(); e.name != "tick" || !strings.Contains(string(e.data), `served by \u003cnode1\u003e`) || e.id != "" {
		t.Errorf("the second event is %s %s: %s", e.id, e.name, e.data)
	}
	change := func(namespaces ...v1.NetNamespace) {
		source.set(namespaces...)
		p.Changed()
	}
	change(objects.NetNamespace("shop", 1, "192.168.7.200"))
	second := untilNamed(next, "delta")
	if !strings.Contains(string(second.data), "192.168.7.200") || second.id == first.id {
		t.Errorf("the change is %s: %s", second.id, second.data)
	}
	stop()
	change()
	_, again, _ := streamOf(t, server.URL, second.id)
	if e := untilNamed(again, "delta"); !strings.Contains(string(e.data), `"noGroups":["shop"]`) {
		t.Errorf("who comes back gets %s", e.data)
	}
	_, other, _ := streamOf(t, server.URL, "of-another-process")
	if e := other(); e.name != "all" || strings.Contains(string(e.data), "shop") {
		t.Errorf("who comes from elsewhere gets %s %s", e.name, e.data)
	}
}

// TestStreamSaysWhatIsWrong: where objects cannot be read, the stream goes on and says so, once, and
// says when they can be again.
func TestStreamSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	source := &played{err: errors.New("no caches")}
	p := newTestPage(t, source, clock.RealClock{})
	server := httptest.NewServer(p)
	t.Cleanup(server.Close)
	_, next, _ := streamOf(t, server.URL, "")
	if e := next(); e.name != "tick" || !strings.Contains(string(e.data), "no caches") {
		t.Errorf("the first event is %s %s", e.name, e.data)
	}
	source.mu.Lock()
	source.err = nil
	source.mu.Unlock()
	untilNamed(next, "all")
	if e := next(); e.name != "tick" || strings.Contains(string(e.data), "problem") {
		t.Errorf("after it the event is %s %s", e.name, e.data)
	}
}

// TestStreamsAreBounded: one client more than there is room for is told so, and gets its turn later.
//
// Mutant: page-has-room-for-all.
func TestStreamsAreBounded(t *testing.T) {
	t.Parallel()
	p := newTestPage(t, &played{}, clock.RealClock{})
	over, end := context.WithCancel(t.Context())
	end()
	if err := p.Start(over); err != nil { // a stream that gets a place ends at once
		t.Fatal(err)
	}
	for range clientsAtMost {
		p.clients <- struct{}{}
	}
	if r := p.get(t, http.MethodGet, "/page/events"); r.StatusCode != http.StatusServiceUnavailable || r.Header.Get("Retry-After") == "" {
		t.Errorf("one more is answered with %s", r.Status)
	}
	<-p.clients
	if r := p.get(t, http.MethodHead, "/page/events"); r.StatusCode != http.StatusOK || len(p.clients) != clientsAtMost-1 {
		t.Errorf("in its turn it is answered with %s, and %d have a place then", r.Status, len(p.clients))
	}
}
