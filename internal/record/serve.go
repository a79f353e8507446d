package record

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"time"
)

// Path is where a Handler is served.
const Path = "/record"

const (
	// pageSize is how many periods a page has if nothing is asked for, and pageAtMost how many
	// it can have.
	pageSize, pageAtMost = 1000, 10_000
)

// Values are the query as parameters of a URL, as Handler takes them.
func (q Query) Values() url.Values {
	v := url.Values{}
	for name, value := range map[string]string{"ip": q.IP, "group": q.Group} {
		if value != "" {
			v.Set(name, value)
		}
	}
	for name, at := range map[string]time.Time{"from": q.From, "to": q.To} {
		if !at.IsZero() {
			v.Set(name, at.UTC().Format(time.RFC3339Nano))
		}
	}
	return v
}

// parameters are those of a request.
type parameters struct {
	query Query
	limit int
	after *position
}

func parseParameters(v url.Values) (p parameters, err error) {
	p.limit = pageSize
	for name := range v {
		value := v.Get(name)
		switch name {
		case "ip":
			ip, parseErr := netip.ParseAddr(value)
			if parseErr != nil {
				err = errors.Join(err, fmt.Errorf("parameter ip: %w", parseErr))
			}
			p.query.IP = ip.String()
		case "group":
			p.query.Group = value
		case "from", "to":
			at, parseErr := time.Parse(time.RFC3339, value)
			if parseErr != nil {
				err = errors.Join(err, fmt.Errorf("parameter %s: give a time as RFC 3339 has it: %w", name, parseErr))
			}
			if name == "from" {
				p.query.From = at
			} else {
				p.query.To = at
			}
		case "limit":
			n, parseErr := strconv.Atoi(value)
			if parseErr != nil || n < 1 || n > pageAtMost {
				err = errors.Join(err, fmt.Errorf("parameter limit: give a number from 1 to %d, not %q", pageAtMost, value))
			}
			p.limit = n
		case "after":
			after, parseErr := parsePosition(value)
			if parseErr != nil {
				err = errors.Join(err, fmt.Errorf("parameter after: give what next was in the page before: %w", parseErr))
			}
			p.after = &after
		default:
			err = errors.Join(err, fmt.Errorf("parameter %s: there are ip, group, from, to, limit and after", name))
		}
	}
	return p, err
}

// Handler serves what a recorder knows as JSON: an Answer. Parameters are ip, group, from and
// to, as times of RFC 3339; limit is how many periods a page may have, and after is the Next
// of the page before.
func Handler(r *Recorder) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		p, err := parseParameters(request.URL.Query())
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		answer, err := r.Answer(request.Context(), p.query)
		switch {
		case errors.Is(err, errBusy):
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		case err != nil:
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		answer.page(p.after, p.limit)
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(answer) // the client is gone
	})
}

// position is that of a period among all others: pages are in this order, which new periods do
// not change.
type position struct {
	From time.Time `json:"from"`
	IP   string    `json:"ip"`
	UID  string    `json:"uid"`
	Term string    `json:"term"`
	// Began and Host tell periods apart that began at the same moment.
	Began string `json:"began,omitempty"`
	Host  string `json:"host"`
}

func positionOf(s *Segment, p *Period) position {
	return position{From: p.From, IP: p.IP, UID: p.UID, Term: s.Term, Began: p.Began, Host: p.Host}
}

func (p position) compare(q position) int {
	return cmp.Or(p.From.Compare(q.From), cmp.Compare(p.IP, q.IP), cmp.Compare(p.UID, q.UID), cmp.Compare(p.Term, q.Term),
		cmp.Compare(p.Began, q.Began), cmp.Compare(p.Host, q.Host))
}

func (p position) String() string {
	text, err := json.Marshal(p)
	if err != nil { // a time outside the years 0 to 9999
		return ""
	}
	return base64.RawURLEncoding.EncodeToString(text)
}

func parsePosition(written string) (p position, err error) {
	text, err := base64.RawURLEncoding.DecodeString(written)
	if err != nil {
		return p, err
	}
	return p, json.Unmarshal(text, &p)
}

// page leaves in the answer as many periods as a page has, those after a position. All segments
// stay.
func (a *Answer) page(after *position, limit int) {
	var all []position
	for i := range a.Segments {
		s := &a.Segments[i]
		for j := range s.Periods {
			if at := positionOf(s, &s.Periods[j]); after == nil || at.compare(*after) > 0 {
				all = append(all, at)
			}
		}
	}
	slices.SortFunc(all, position.compare)
	if len(all) > limit {
		all = all[:limit]
		a.Next = all[limit-1].String()
	}
	for i := range a.Segments {
		s := &a.Segments[i]
		s.Periods = slices.DeleteFunc(s.Periods, func(p Period) bool {
			at := positionOf(s, &p)
			return len(all) == 0 || after != nil && at.compare(*after) <= 0 || at.compare(all[len(all)-1]) > 0
		})
	}
}

// Join adds the next page to those before.
func (a *Answer) Join(next Answer) {
	for _, s := range next.Segments {
		i := slices.IndexFunc(a.Segments, func(was Segment) bool { return was.Term == s.Term && was.From.Equal(s.From) })
		if i < 0 {
			a.Segments = append(a.Segments, s)
			continue
		}
		s.Periods = append(a.Segments[i].Periods, s.Periods...)
		a.Segments[i] = s
	}
	a.Now, a.Problem, a.Next = next.Now, next.Problem, next.Next
}
