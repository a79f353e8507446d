package page

import (
	"bytes"
	"cmp"
	"html/template"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

const (
	// rowsAtOnce is how many rows a table without JavaScript has; links lead to the others.
	rowsAtOnce = 200
	// issuesAtOnce is how many issues are listed at once.
	issuesAtOnce = 50
)

// frame is what every page has.
type frame struct {
	Title string
	// Root leads to the overview, relative to the page.
	Root    string
	Serving string
	At      string
	// Last is the id of the event that the page shows, or of one before it.
	Last string
	// Problem says why what is shown may be old; empty if it is not.
	Problem string
}

// count is how many have a level.
type count struct {
	Level  Level
	Number int
}

// overviewPage is the data of the overview.
type overviewPage struct {
	frame
	Counts []count
	Issues []Issue
	// MoreIssues are not listed.
	MoreIssues int
	Groups     []Group
	// Query and Only are what Groups are searched and filtered by; Total is how many there are of these.
	Query string
	Only  Level
	From  int
	Total int
	// Before and After are the queries of the tables before and after this one; empty for none.
	Before, After string
	Hosts         []Host
	MoreHosts     int
	Changes       []Change
	Moves         []Move
}

// groupPage is the data of the page of a namespace or an EgressIP.
type groupPage struct {
	frame
	Group
	Headline string
	// Hosts are those that claim its egress IPs.
	Hosts   []Host
	Changes []Change
	Moves   []Move
}

// hostPage is the data of the page of a host.
type hostPage struct {
	frame
	Host
	Changes []Change
}

func functions() template.FuncMap {
	return template.FuncMap{
		"href": href,
		"grouphref": func(id string) string {
			if name, ok := egress.NameOfEgressIP(id); ok {
				return href(kindEgressIP, name)
			}
			return href(kindNamespace, id)
		},
		"label":  Level.Label,
		"symbol": Level.Symbol,
		"time":   timeText,
		"join":   func(s []string) string { return strings.Join(s, ", ") },
	}
}

// Label names a level.
func (l Level) Label() string {
	switch l {
	case LevelConflict:
		return "Conflict"
	case LevelFailed:
		return "Failed"
	case LevelUnknown:
		return "Unknown"
	case LevelDegraded:
		return "Degraded"
	case LevelOK:
		return "In order"
	default:
		return "No egress IPs"
	}
}

// Symbol is a character for a level, so that colours need not be told apart.
func (l Level) Symbol() string {
	switch l {
	case LevelConflict:
		return "≠"
	case LevelFailed:
		return "✕"
	case LevelUnknown:
		return "?"
	case LevelDegraded:
		return "!"
	case LevelOK:
		return "✓"
	default:
		return "–"
	}
}

// href is the address of a page, relative to the overview.
func href(kind, name string) string {
	return map[string]string{kindNamespace: "namespaces/", kindEgressIP: "egressips/", kindHost: "hosts/"}[kind] + url.PathEscape(name)
}

func (p *Page) frame(title, root string, shown snapshot) frame {
	return frame{Title: title, Root: root, Serving: p.config.Serving(), At: shown.at.UTC().Format(time.RFC3339), Last: shown.id, Problem: shown.problem}
}

// render writes a page. Nothing is written before all of it is made.
func (p *Page) render(w http.ResponseWriter, status int, name string, data any) {
	var b bytes.Buffer
	if err := p.templates.ExecuteTemplate(&b, name, data); err != nil {
		p.config.Log.Error(err, "make a page", "template", name)
		http.Error(w, "the page could not be made: see the controller's log", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write(b.Bytes()) // a client that is gone needs none
}

func (p *Page) notFound(w http.ResponseWriter, r *http.Request, text string) {
	root := strings.Repeat("../", max(strings.Count(strings.TrimPrefix(r.URL.Path, Path+"/"), "/"), 0))
	p.render(w, http.StatusNotFound, "missing.html", struct {
		frame
		Text string
	}{p.frame("Not found", root, snapshot{at: p.config.Clock.Now()}), text})
}

// model is the newest Model, or an answer that says why there is none.
func (p *Page) model(w http.ResponseWriter, r *http.Request) (snapshot, bool) {
	m := p.feed.current(r.Context())
	if m.at.IsZero() {
		p.config.Log.V(1).Info("the page cannot be served yet", "error", m.problem)
		w.Header().Set("Retry-After", "5")
		http.Error(w, "the objects are not known yet: "+m.problem, http.StatusServiceUnavailable)
		return m, false
	}
	return m, true
}

func (p *Page) overview(w http.ResponseWriter, r *http.Request) {
	m, ok := p.model(w, r)
	if !ok {
		return
	}
	p.render(w, http.StatusOK, "overview.html", makeOverview(p.frame("Egress IPs", "", m), m.Model, r.URL.Query()))
}

// makeOverview makes the overview that a query asks for: q searches, level filters, after is the ID
// of the last row of the table before.
func makeOverview(f frame, m Model, query url.Values) overviewPage {
	page := overviewPage{frame: f, Query: query.Get("q"), Only: Level(query.Get("level")), Changes: m.Changes, Moves: m.Moves}
	if !slices.Contains(Levels(), page.Only) {
		page.Only = ""
	}
	page.Issues = m.Issues[:min(len(m.Issues), issuesAtOnce)]
	page.MoreIssues = len(m.Issues) - len(page.Issues)
	numbers := make(map[Level]int)
	var rows []Group
	for _, g := range m.Groups {
		numbers[g.Level]++
		shown := g.Level == page.Only || page.Only == "" && (g.Level != LevelNone || page.Query != "")
		if shown && g.Matches(page.Query) {
			rows = append(rows, g)
		}
	}
	for _, l := range Levels() {
		page.Counts = append(page.Counts, count{l, numbers[l]})
	}
	slices.SortStableFunc(rows, func(a, b Group) int { return cmp.Compare(a.Level.rank(), b.Level.rank()) })
	page.Total = len(rows)
	if i := slices.IndexFunc(rows, func(g Group) bool { return g.ID == query.Get("after") }); i >= 0 {
		page.From = i + 1
	}
	page.Groups = rows[page.From:min(page.From+rowsAtOnce, len(rows))]
	with := func(after string) string {
		next := url.Values{}
		for key, value := range map[string]string{"q": page.Query, "level": string(page.Only), "after": after} {
			if value != "" {
				next.Set(key, value)
			}
		}
		return "?" + next.Encode()
	}
	if end := page.From + len(page.Groups); end < len(rows) && end > 0 {
		page.After = with(rows[end-1].ID)
	}
	switch {
	case page.From > rowsAtOnce:
		page.Before = with(rows[page.From-rowsAtOnce-1].ID)
	case page.From > 0:
		page.Before = with("")
	}
	hosts := slices.Clone(m.Hosts)
	slices.SortStableFunc(hosts, func(a, b Host) int { return cmp.Compare(a.Level.rank(), b.Level.rank()) })
	page.Hosts = hosts[:min(len(hosts), rowsAtOnce)]
	page.MoreHosts = len(hosts) - len(page.Hosts)
	return page
}

// Matches reports whether all words of a query are in what is known of a group.
func (g Group) Matches(query string) bool {
	parts := []string{g.ID, g.Reason, g.Level.Label()}
	for _, r := range g.Requests {
		parts = append(parts, r.IP, r.Host, r.State, r.Reason)
	}
	text := strings.ToLower(strings.Join(parts, " "))
	for word := range strings.FieldsSeq(strings.ToLower(query)) {
		if !strings.Contains(text, word) {
			return false
		}
	}
	return true
}

// group returns the handler of pages of namespaces, or of EgressIPs.
func (p *Page) group(kind string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		m, ok := p.model(w, r)
		if !ok {
			return
		}
		name := r.PathValue("name")
		i := slices.IndexFunc(m.Groups, func(g Group) bool { return g.Kind == kind && g.Name == name })
		if i < 0 {
			p.notFound(w, r, "There is no "+kind+" "+name+" that is known here. The controller makes a NetNamespace for each Namespace.")
			return
		}
		g := m.Groups[i]
		page := groupPage{frame: p.frame(kind+" "+name, "../", m), Group: g, Headline: headline(g)}
		for _, h := range m.Hosts {
			if slices.ContainsFunc(g.Requests, func(q Request) bool { return q.Host == h.Name }) {
				page.Hosts = append(page.Hosts, h)
			}
		}
		for _, move := range m.Moves {
			if move.Kind == kind && move.Name == name {
				page.Moves = append(page.Moves, move)
			}
		}
		for _, c := range m.Changes {
			own := c.Kind == kind && c.Name == name
			if own || c.Kind == kindHost && slices.ContainsFunc(page.Hosts, func(h Host) bool { return h.Name == c.Name }) {
				page.Changes = append(page.Changes, c)
			}
		}
		p.render(w, http.StatusOK, "group.html", page)
	}
}

func (p *Page) host(w http.ResponseWriter, r *http.Request) {
	m, ok := p.model(w, r)
	if !ok {
		return
	}
	name := r.PathValue("name")
	i := slices.IndexFunc(m.Hosts, func(h Host) bool { return h.Name == name })
	if i < 0 {
		p.notFound(w, r, "There is no host "+name+" that is known here. The controller makes a HostSubnet for each Node.")
		return
	}
	page := hostPage{frame: p.frame("host "+name, "../", m), Host: m.Hosts[i]}
	for _, c := range m.Changes {
		if c.Kind == kindHost && c.Name == name {
			page.Changes = append(page.Changes, c)
		}
	}
	p.render(w, http.StatusOK, "host.html", page)
}
