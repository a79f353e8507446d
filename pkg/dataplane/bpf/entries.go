package bpf

import (
	"errors"
	"iter"
	"net/netip"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// Entries are those of maps pods and hosted, in a form that is compared fast.
type Entries struct{ four, six func(familyMaps) bool }

// EntriesOf returns the entries that maps have with these routes and networks.
func (m *Maps) EntriesOf(routes map[netip.Addr]Route, hosted map[Network]uint32) Entries {
	return Entries{four: m.table4.held(routes, hosted), six: m.table6.held(routes, hosted)}
}

// Hold reports whether the maps hold these entries and no others.
func (m *Maps) Hold(e Entries) bool {
	return e.four(m.ip4) && e.six(m.ip6)
}

func same[K, V comparable](have entries[K, V], want map[K]V) bool {
	if have.n != len(want) {
		return false
	}
	for key, value := range have.all() {
		if w, ok := want[key]; !ok || w != value {
			return false
		}
	}
	return true
}

// entries are what a map holds, in memory that is used again.
type entries[K, V comparable] struct {
	keys   []K
	values []V
	n      int
	// single: the kernel, before Linux 5.6, gives one entry at a time only.
	single bool
}

func (e *entries[K, V]) all() iter.Seq2[K, V] {
	return func(yield func(K, V) bool) {
		for i := range e.n {
			if !yield(e.keys[i], e.values[i]) {
				return
			}
		}
	}
}

// leastEntries is how many entries are asked for at least; the kernel gives those of
// whole hash buckets.
const leastEntries = 256

// read reads all entries of a map.
func (e *entries[K, V]) read(m *ebpf.Map) error {
	for room := max(len(e.keys), leastEntries); !e.single; room *= 2 {
		if room > len(e.keys) {
			e.keys, e.values = make([]K, room), make([]V, room)
		}
		full, err := e.readBatch(m)
		switch {
		case errors.Is(err, ebpf.ErrNotSupported):
			e.single = true
		case err != nil:
			return err
		case !full:
			return nil
		}
	}
	return e.readSingly(m)
}

// readBatch reads in one call what there is room for, and reports whether that may not be
// all.
func (e *entries[K, V]) readBatch(m *ebpf.Map) (full bool, err error) {
	var cursor ebpf.MapBatchCursor
	e.n, err = m.BatchLookup(&cursor, e.keys, e.values, nil)
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return false, nil // the end
	}
	if errors.Is(err, unix.ENOSPC) {
		return true, nil
	}
	return true, err
}

// Batches reports whether the kernel is known to give many entries of a map in one call.
func (m *Maps) Batches() bool {
	some := entries[uint32, uint32]{keys: make([]uint32, 1), values: make([]uint32, 1)}
	_, err := some.readBatch(m.ip4.hosted)
	return err == nil
}

func (e *entries[K, V]) readSingly(m *ebpf.Map) error {
	e.keys, e.values = e.keys[:0], e.values[:0]
	var key K
	var value V
	it := m.Iterate()
	for it.Next(&key, &value) {
		e.keys, e.values = append(e.keys, key), append(e.values, value)
	}
	e.n = len(e.keys)
	return it.Err()
}
