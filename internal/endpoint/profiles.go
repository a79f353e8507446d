package endpoint

import (
	"net/http"
	"net/http/pprof" //nolint:gosec // what it adds to the default mux is served nowhere
)

// profilesPath is where Go's tools look for profiles.
const profilesPath = "/debug/pprof"

// Profiles serves profiles of this process in the format of "go tool pprof": where its
// processor time and memory go, and what its goroutines do. A profile of the processor takes
// 30 seconds, and up to a minute by ?seconds=N.
func Profiles() Guarded {
	mux := http.NewServeMux()
	mux.HandleFunc(profilesPath+"/", pprof.Index)
	mux.HandleFunc(profilesPath+"/profile", pprof.Profile)
	mux.HandleFunc(profilesPath+"/trace", pprof.Trace)
	mux.HandleFunc(profilesPath+"/symbol", pprof.Symbol)
	return Guarded{Path: profilesPath, Handler: mux}
}
