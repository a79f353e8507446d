package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"
)

// result is one line of watch and stream.
type result struct {
	// ID is unique among the requests of one process, and is in the request:
	// the access log shows it.
	ID string `json:"id"`
	// At is when the request began.
	At time.Time `json:"at"`
	// Millis is how long the answer took.
	Millis float64 `json:"ms"`
	// Saw is the address that the server saw, empty without an answer.
	Saw   string `json:"saw,omitempty"`
	Error string `json:"error,omitempty"`
}

// printer writes results, one line at a time.
type printer struct {
	mu  sync.Mutex
	out *json.Encoder
}

func (p *printer) print(r result) {
	p.mu.Lock()
	defer p.mu.Unlock()
	// A reader that is gone needs no results.
	_ = p.out.Encode(r)
}

// watch asks at each interval, whether or not earlier requests were answered.
func watch(ctx context.Context, target string, o options) error {
	u, err := url.Parse(target)
	if err != nil {
		return err
	}
	if o.length > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, o.length)
		defer cancel()
	}
	p := &printer{out: json.NewEncoder(os.Stdout)}
	var all sync.WaitGroup
	defer all.Wait()
	tick := time.NewTicker(o.every)
	defer tick.Stop()
	for n := 1; ; n++ {
		id := fmt.Sprintf("%s-%d", o.id, n)
		all.Go(func() {
			r := result{ID: id, At: time.Now()}
			saw, err := ask(u, id, o)
			r.Millis, r.Saw = float64(time.Since(r.At).Microseconds())/1000, saw
			if err != nil {
				r.Error = err.Error()
			}
			p.print(r)
		})
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// ask makes one request over a new connection and returns the address that the
// server saw.
func ask(u *url.URL, id string, o options) (string, error) {
	switch u.Scheme {
	case "udp":
		o.id = id
		answer, err := askUDP(u.Host, o)
		_, rest, _ := strings.Cut(answer, " saw ")
		saw, _, _ := strings.Cut(rest, ",")
		return saw, err
	case "tcp":
		conn, err := net.DialTimeout("tcp", u.Host, o.timeout)
		if err != nil {
			return "", err
		}
		defer conn.Close()
		return askLine(conn, bufio.NewReader(conn), id, o.timeout)
	}
	query := *u
	q := query.Query()
	q.Set("id", id)
	query.RawQuery = q.Encode()
	client := &http.Client{Timeout: o.timeout, Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Get(query.String())
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	_, err = io.Copy(io.Discard, response.Body)
	return response.Header.Get(sawHeader), err
}

// askLine sends a line to an echo and returns the address in its answer.
func askLine(conn net.Conn, in *bufio.Reader, id string, timeout time.Duration) (string, error) {
	if err := conn.SetDeadline(time.Now().Add(timeout)); err != nil {
		return "", err
	}
	if _, err := fmt.Fprintln(conn, id); err != nil {
		return "", err
	}
	line, err := in.ReadString('\n')
	if err != nil {
		return "", err
	}
	saw, echoed, _ := strings.Cut(strings.TrimSpace(line), " ")
	if echoed != id {
		return saw, fmt.Errorf("sent %q, got %q back", id, echoed)
	}
	return saw, nil
}

// stream sends a line at each interval over one connection; it fails when the
// connection does.
func stream(ctx context.Context, address string, o options) error {
	if o.length > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, o.length)
		defer cancel()
	}
	conn, err := net.DialTimeout("tcp", address, o.timeout)
	if err != nil {
		return err
	}
	defer conn.Close()
	in := bufio.NewReader(conn)
	p := &printer{out: json.NewEncoder(os.Stdout)}
	tick := time.NewTicker(o.every)
	defer tick.Stop()
	for n := 1; ; n++ {
		r := result{ID: fmt.Sprintf("%s-%d", o.id, n), At: time.Now()}
		r.Saw, err = askLine(conn, in, r.ID, o.timeout)
		r.Millis = float64(time.Since(r.At).Microseconds()) / 1000
		if err != nil {
			r.Error = err.Error()
		}
		p.print(r)
		if err != nil {
			return fmt.Errorf("the connection ended after %d answers: %w", n-1, err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// idle waits for data that never comes, until the connection ends.
func idle(address string, o options) error {
	conn, err := net.DialTimeout("tcp", address, o.timeout)
	if err != nil {
		return err
	}
	defer conn.Close()
	in := bufio.NewReader(conn)
	r := result{ID: o.id}
	if r.Saw, err = askLine(conn, in, r.ID, o.timeout); err != nil {
		return err
	}
	if err := conn.SetDeadline(time.Now().Add(o.length)); err != nil {
		return err
	}
	_, err = in.ReadByte()
	r.At = time.Now()
	if err != nil {
		r.Error = err.Error()
	}
	p := &printer{out: json.NewEncoder(os.Stdout)}
	p.print(r)
	return nil
}
