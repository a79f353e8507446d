package endpoint

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// Profiles are what Go's tools read, below one path, and the command line is not among them: it may
// name what nobody needs to know.
//
// Mutant killed: profiles-of-the-command-line.
func TestProfiles(t *testing.T) {
	g := Profiles()
	for path, want := range map[string]struct {
		code int
		part string
	}{
		"/debug/pprof/":                  {http.StatusOK, "goroutine"},
		"/debug/pprof/goroutine?debug=1": {http.StatusOK, "goroutine profile: total"},
		"/debug/pprof/heap":              {http.StatusOK, "\x1f\x8b"}, // compressed
		"/debug/pprof/profile?seconds=1": {http.StatusOK, "\x1f\x8b"},
		"/debug/pprof/cmdline":           {http.StatusNotFound, ""},
	} {
		w := httptest.NewRecorder()
		g.Handler.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, http.NoBody))
		if w.Code != want.code || !strings.Contains(w.Body.String(), want.part) {
			t.Errorf("%s: %d %.60q, want %d and %q", path, w.Code, w.Body.String(), want.code, want.part)
		}
		if !strings.HasPrefix(path, g.Path) {
			t.Errorf("%s is not below %s", path, g.Path)
		}
	}
}
