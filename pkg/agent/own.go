package agent

import (
	"slices"
	"sync"

	"k8s.io/apimachinery/pkg/types"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
)

// own is this node's HostSubnet as the API server gave it to requests of our own. A watch
// may be dead unnoticed for many seconds, as after the loss of the address that its
// connection came from. If claims move meanwhile, this host would keep what another one has
// now. So what was read since stands in for what the cache has, until the cache has caught
// up. The zero value knows nothing.
type own struct {
	mu sync.Mutex
	// asked numbers the requests, answered is the latest one that was answered.
	asked, answered int
	// cached is what the cache had when that one was sent, live what the API server has:
	// nil if there is none.
	cached ownVersion
	live   *v1.HostSubnet
	// lags: the two were not the same.
	lags bool
}

// ownVersion identifies what a HostSubnet demands of the host; zero for none.
type ownVersion struct {
	uid        types.UID
	generation int64
}

func versionOf(h *v1.HostSubnet) ownVersion {
	if h == nil {
		return ownVersion{}
	}
	return ownVersion{uid: h.UID, generation: h.Generation}
}

// question is a request for this node's HostSubnet.
type question struct {
	number int
	cached ownVersion
}

// asks begins a request. The cache has the given HostSubnet, nil for none.
func (o *own) asks(cached *v1.HostSubnet) question {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.asked++
	return question{number: o.asked, cached: versionOf(cached)}
}

// answer takes what the API server has: nil if there is none. current reports that the
// cache had the same when the request was sent, and news that it had something else, which was
// not known.
func (o *own) answer(q question, live *v1.HostSubnet) (current, news bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	is := versionOf(live)
	current = is == q.cached
	if q.number < o.answered {
		return current, false // overtaken by a later one
	}
	news = !current && q.cached != ownVersion{} && (!o.lags || is != versionOf(o.live))
	o.answered, o.cached, o.live, o.lags = q.number, q.cached, live, !current
	return current, news
}

// correct returns the HostSubnets of the cache, with this node's one replaced, or left out, where
// an older one is there. Where there is none, the host has nothing to give up, and the answer may
// be the older one. What correct is given is not changed.
func (o *own) correct(node string, cached []v1.HostSubnet) []v1.HostSubnet {
	o.mu.Lock()
	defer o.mu.Unlock()
	i := slices.IndexFunc(cached, func(h v1.HostSubnet) bool { return h.Name == node })
	if o.answered == 0 || i < 0 || !o.newerThan(&cached[i]) {
		return cached
	}
	cached = slices.Clone(cached)
	if o.live == nil {
		return slices.Delete(cached, i, i+1)
	}
	cached[i] = *o.live
	return cached
}

// newerThan reports whether the API server's answer is younger than what the cache has. A
// UID does not come back, and a generation only grows.
func (o *own) newerThan(cached *v1.HostSubnet) bool {
	if o.live != nil && o.live.UID == cached.UID {
		return o.live.Generation > cached.Generation
	}
	return o.cached.uid == cached.UID
}
