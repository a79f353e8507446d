package live

import (
	"net/netip"
	"net/url"
	"reflect"
	"strings"
	"testing"
)

func addr(text string) netip.Addr { return netip.MustParseAddr(text) }

// TestQueriesAreReadAsWritten: what is asked arrives, and without a destination it is one that no
// machine has.
func TestQueriesAreReadAsWritten(t *testing.T) {
	for _, q := range []Query{
		{Pod: addr("10.244.1.5"), To: addr("198.51.100.9"), Sender: true, Via: []netip.Addr{addr("10.1.8.13"), addr("10.1.8.14")}},
		{Pod: addr("10.244.1.5"), To: addr("198.51.100.9"), EgressIP: addr("10.1.8.200"), NetID: 17, From: addr("10.1.8.11")},
		{Pod: addr("fd00::5"), To: addr("2001:db8:1::9"), Sender: true, EgressIP: addr("fd00:7::1"), NetID: 1<<24 - 1},
	} {
		got, err := ParseQuery(q.Values())
		if err != nil || !reflect.DeepEqual(got, q) {
			t.Errorf("%+v became %+v, %v", q, got, err)
		}
	}
	for pod, to := range map[string]string{"10.244.1.5": "203.0.113.1", "fd00::5": "2001:db8::1"} {
		if q, err := ParseQuery(url.Values{"pod": {pod}}); err != nil || q.To != addr(to) {
			t.Errorf("to nowhere in particular from %s: %v, %v", pod, q.To, err)
		}
	}
}

// TestBadQueriesAreRefused: the error names the parameter.
func TestBadQueriesAreRefused(t *testing.T) {
	for query, want := range map[string]string{
		"":                                  `pod=""`,
		"pod=web-1":                         `pod="web-1"`,
		"pod=fe80::1%25eth0":                "pod=",
		"pod=10.0.0.1&to=here":              `to="here"`,
		"pod=10.0.0.1&via=x":                `via="x"`,
		"pod=10.0.0.1&egressIP=10.0.0.300":  "egressIP=",
		"pod=10.0.0.1&netid=16777216":       "netid=",
		"pod=10.0.0.1&netid=-1":             "netid=",
		"pod=10.0.0.1&to=2001:db8::1":       "two families",
		"pod=10.0.0.1&egressIP=2001:db8::1": "two families",
		"pod=10.0.0.1" + strings.Repeat("&via=10.0.0.2", MaxVia+1): "9 egress hosts",
	} {
		values, err := url.ParseQuery(query)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParseQuery(values); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q is refused with %v, want %s", query, err, want)
		}
	}
}

// FuzzParseQuery: whatever comes, a query that is accepted is written and read as the same.
func FuzzParseQuery(f *testing.F) {
	f.Add("pod=10.244.1.5&sender=true&via=10.1.8.13&netid=17&egressIP=10.1.8.200&from=10.1.8.11")
	f.Add("pod=fd00::5&to=::1")
	f.Fuzz(func(t *testing.T, query string) {
		values, err := url.ParseQuery(query)
		if err != nil {
			t.Skip()
		}
		q, err := ParseQuery(values)
		if err != nil {
			t.Skip()
		}
		if !q.EgressIP.IsValid() {
			q.NetID = 0 // says nothing without one
		}
		if again, err := ParseQuery(q.Values()); err != nil || !reflect.DeepEqual(again, q) {
			t.Errorf("%q: %+v became %+v, %v", query, q, again, err)
		}
	})
}
