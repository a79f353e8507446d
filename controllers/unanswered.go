package controllers

import (
	"errors"
	"net/http"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
)

// unanswered are the writes of claims of which it is not known whether they are stored, or
// will be: those that are under way, and those that ended without a clear answer. What they
// add to the list of one host must not be claimed for another.
//
// Each depends on the version of the HostSubnet that it was made from. Once there is a newer
// one, the write is in it, or fails for ever.
type unanswered []*claimWrite

// add notes a write that is about to begin.
func (u *unanswered) add(w *claimWrite) { *u = append(*u, w) }

// answered notes the answer to a write. One that is not clear does not end the doubt, and the
// same write again, which did not get one either, does not add to it.
func (u *unanswered) answered(w *claimWrite, err error) {
	known := err == nil || refused(err)
	again := func(other *claimWrite) bool {
		return other != w && other.before.UID == w.before.UID &&
			other.before.ResourceVersion == w.before.ResourceVersion && other.wanted.equal(w.wanted)
	}
	if known || slices.ContainsFunc(*u, again) {
		*u = slices.DeleteFunc(*u, func(other *claimWrite) bool { return other == w })
	}
}

// settle returns the writes of which the view shows what has become, and forgets them.
func (u *unanswered) settle(v view) (settled []*claimWrite) {
	*u = slices.DeleteFunc(*u, func(w *claimWrite) bool {
		h := v.host(w.before.Name)
		if h != nil && h.UID == w.before.UID && !newer(h, w.before) {
			return false
		}
		settled = append(settled, w)
		return true
	})
	return settled
}

// doubts returns what the writes may have added to which list.
func (u *unanswered) doubts() *doubts {
	d := &doubts{adds: make(map[string][]*claimWrite), asked: make(map[string]*claimWrite)}
	for _, w := range *u {
		before := listsOf(w.before).all()
		for _, ip := range w.wanted.all() {
			if !slices.Contains(before, ip) {
				d.adds[ip] = append(d.adds[ip], w)
			}
		}
	}
	return d
}

// doubts are the additions of writes that were not answered.
type doubts struct {
	// adds are the writes that add an address, by address.
	adds map[string][]*claimWrite
	// asked are those that another host waits for, by the name of their own.
	asked map[string]*claimWrite
}

// elsewhere reports whether the address may be on the list of another host.
func (d *doubts) elsewhere(ip, host string) bool {
	for _, w := range d.adds[ip] {
		if w.before.Name != host {
			d.asked[w.before.Name] = w
			return true
		}
	}
	return false
}

// again are the lists to write to a host for which there is nothing else to write: the same
// as before, if another host waits for what became of that. Without a new version of the
// HostSubnet, or an answer, it would wait for ever.
func (d *doubts) again(h *v1.HostSubnet) lists {
	if w := d.asked[h.Name]; w != nil {
		return w.wanted
	}
	return listsOf(h)
}

// newer reports whether a is another version than b, and not an older one.
func newer(a, b *v1.HostSubnet) bool {
	return a.ResourceVersion != b.ResourceVersion && !older(a, b)
}

// refused reports whether the API server has answered that it did not store the object. It
// may have if it gave up itself, or if something between gave up.
func refused(err error) bool {
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		return false
	}
	code := status.Status().Code
	return code >= http.StatusBadRequest && code < http.StatusInternalServerError && code != http.StatusRequestTimeout
}
