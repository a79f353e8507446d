package page

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"
)

const (
	// clientsAtMost limits the streams at a time. An administrator has a few windows.
	clientsAtMost = 32
	// tickEvery is the time between two ticks, by which a client knows that the stream still works.
	tickEvery = 5 * time.Second
	// lookEvery is how often objects that may have changed are looked at for clients.
	lookEvery = restFor
	// streamFor is how long a stream lasts: the client comes back, and is asked again who it is.
	streamFor = 5 * time.Minute
	// writeWithin is how long a client may take for what is sent to it.
	writeWithin = 15 * time.Second
)

// tick says when the page's process looked last, and what it is.
type tick struct {
	// At is the time of the process in the form of RFC 3339.
	At      string `json:"at"`
	Serving string `json:"serving"`
	// Problem says why what is shown may be old; empty if it is not.
	Problem string `json:"problem,omitempty"`
}

// stream sends events until the client goes, streamFor is over or the page ends.
func (p *Page) stream(w http.ResponseWriter, r *http.Request) {
	select {
	case p.clients <- struct{}{}:
		defer func() { <-p.clients }()
	default:
		w.Header().Set("Retry-After", "10")
		http.Error(w, fmt.Sprintf("%d windows get changes already: close some, or reload this one to see what has changed", clientsAtMost), http.StatusServiceUnavailable)
		return
	}
	out := http.NewResponseController(w)
	// The connection's own limits are for answers that end.
	_ = out.SetReadDeadline(time.Time{})
	w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
	w.Header().Set("X-Accel-Buffering", "no")
	w.WriteHeader(http.StatusOK)
	if r.Method == http.MethodHead {
		return
	}
	s := &streamer{page: p, w: w, out: out, last: r.Header.Get("Last-Event-ID")}
	if s.last == "" {
		s.last = r.URL.Query().Get("last")
	}
	s.run(r.Context())
}

// streamer is one stream.
type streamer struct {
	page *Page
	w    http.ResponseWriter
	out  *http.ResponseController
	// last is the id of the last event that the client has.
	last string
	// failed is why objects could not be read the last time.
	failed string
}

func (s *streamer) run(ctx context.Context) {
	clock := s.page.config.Clock
	over := clock.NewTimer(streamFor)
	defer over.Stop()
	ticks := clock.NewTicker(tickEvery)
	defer ticks.Stop()
	looks := clock.NewTicker(lookEvery)
	defer looks.Stop()
	if !s.send(ctx) || !s.tick() {
		return
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.page.over:
			return
		case <-over.C():
			return
		case <-ticks.C():
			if !s.tick() {
				return
			}
		case <-looks.C():
			if !s.send(ctx) {
				return
			}
		}
	}
}

// send sends what the client does not have yet.
func (s *streamer) send(ctx context.Context) bool {
	events, last, err := s.page.feed.after(ctx, s.last)
	if err != nil {
		changed := s.failed != err.Error()
		s.failed = err.Error()
		return !changed || s.tick()
	}
	recovered := s.failed != ""
	s.failed, s.last = "", last
	for _, e := range events {
		if !s.write(e) {
			return false
		}
	}
	return !recovered || s.tick()
}

func (s *streamer) tick() bool {
	data, err := json.Marshal(tick{At: s.page.config.Clock.Now().UTC().Format(time.RFC3339), Serving: s.page.config.Serving(), Problem: s.failed})
	return err == nil && s.write(event{name: "tick", data: data})
}

// write sends one event; false if the client is gone, or does not take it.
func (s *streamer) write(e event) bool {
	var b bytes.Buffer
	if e.id != "" {
		fmt.Fprintf(&b, "id: %s\n", e.id)
	}
	fmt.Fprintf(&b, "event: %s\n", e.name)
	for line := range bytes.Lines(e.data) { // JSON has none but one
		fmt.Fprintf(&b, "data: %s\n", bytes.TrimRight(line, "\n"))
	}
	b.WriteString("\n")
	// Where the writer knows no deadline, as in tests, there is none.
	_ = s.out.SetWriteDeadline(s.page.config.Clock.Now().Add(writeWithin))
	if _, err := s.w.Write(b.Bytes()); err != nil {
		return false
	}
	return s.out.Flush() == nil
}
