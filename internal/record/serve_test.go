package record

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"
)

// TestPages: pages have all periods, each once, also if more begin meanwhile.
//
// Mutant: record-repeats-pages.
func TestPages(t *testing.T) {
	t.Parallel()
	now := start()
	r := New(Config{Writer: "node1", Term: "a", Now: func() time.Time { return now }})
	r.Begin(nil)
	const n = 25
	for i := range n {
		now = now.Add(time.Duration(i%2) * time.Second)
		r.Record(Change{Use: use(fmt.Sprintf("10.0.0.%d", i%3), fmt.Sprintf("node%d", i)), Reason: "Test"})
	}
	server := httptest.NewServer(Handler(r))
	defer server.Close()
	var all Answer
	for pages := 0; pages == 0 || all.Next != ""; pages++ {
		v := Query{From: start()}.Values()
		v.Set("limit", "7")
		if pages > 0 {
			v.Set("after", all.Next)
		}
		var page Answer
		status, text := fetch(t, server.URL+"?"+v.Encode())
		if err := json.Unmarshal([]byte(text), &page); status != http.StatusOK || err != nil {
			t.Fatalf("%d, %v: %s", status, err, text)
		}
		all.Join(page)
		now = now.Add(time.Second)
		if pages == 1 {
			r.Record(Change{Use: use("10.0.0.9", "late")})
		}
	}
	seen := make(map[string]int)
	for _, s := range all.Segments {
		for _, p := range s.Periods {
			seen[p.Host]++
		}
	}
	for i := range n {
		if host := fmt.Sprintf("node%d", i); seen[host] != 1 {
			t.Errorf("%s is on %d pages", host, seen[host])
		}
	}
	if len(all.Segments) != 1 || seen["late"] != 1 || !all.Segments[0].Live {
		t.Errorf("segments: %+v", all.Segments)
	}
}

// TestBadQueries: what cannot be asked for is refused with the name of the parameter.
func TestBadQueries(t *testing.T) {
	t.Parallel()
	r := New(Config{Writer: "node1", Term: "a", Now: start})
	server := httptest.NewServer(Handler(r))
	defer server.Close()
	for query, want := range map[string]string{
		"ip=10.0.0": "parameter ip", "from=yesterday": "parameter from", "limit=0": "parameter limit", "limit=10001": "parameter limit",
		"after=x": "parameter after", "namespace=shop": "parameter namespace", "ip=::1&group=shop&from=2026-11-24T08:00:00Z": "",
	} {
		status, text := fetch(t, server.URL+"?"+query)
		if (status == http.StatusOK) != (want == "") || !strings.Contains(text, want) {
			t.Errorf("%s is answered with %d: %s", query, status, text)
		}
	}
}

func fetch(t *testing.T, at string) (status int, text string) {
	t.Helper()
	if _, err := url.Parse(at); err != nil {
		t.Fatal(err)
	}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, at, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	var b strings.Builder
	buffer := make([]byte, 4096)
	for {
		k, err := response.Body.Read(buffer)
		b.Write(buffer[:k])
		if err != nil {
			return response.StatusCode, b.String()
		}
	}
}
