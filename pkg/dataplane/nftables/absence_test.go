package nftables

import (
	"errors"
	"net/netip"
	"testing"
	"time"
)

// given: a kernel without nf_tables; then it is asked for it once in a while, and not each time that
// something is to be read there, changed there or tried; once it has it, it is seen.
//
// Mutants killed: absence-is-forgotten, absence-is-for-good.
func TestAbsentNFTablesIsNotAskedForAgain(t *testing.T) {
	asked, now := 0, time.Hour
	answer := ErrAbsent
	// Without a socket, whatever would ask the kernel panics.
	d := &Driver{wantOwned: true, absence: absence{
		read: func() (uint32, error) { asked++; return 7, answer },
		now:  func() time.Duration { return now },
	}}
	links := Links{Sources: map[int][]netip.Addr{1: {netip.MustParseAddr("192.0.2.1")}}}
	for name, do := range map[string]func() (empty bool, err error){
		"Observe":       func() (bool, error) { c, err := d.Observe(); return !c.Exists, err },
		"ObserveLinks":  func() (bool, error) { c, err := d.ObserveLinks(); return !c.Exists(), err },
		"AttendLinks":   func() (bool, error) { there, err := d.AttendLinks(time.Minute); return !there, err },
		"LinksAttended": func() (bool, error) { there, _, err := d.LinksAttended(); return !there, err },
		"Look":          func() (bool, error) { c, err := new(Foreign).Look(d, Question{}); return len(c) == 0, err },
		"Remove":        func() (bool, error) { n, err := d.Remove(); return n == 0, err },
		"RemoveLinks":   func() (bool, error) { n, err := d.RemoveLinks(); return n == 0, err },
		"Unchanged":     func() (bool, error) { return !d.Unchanged(), nil },
		"Absent":        func() (bool, error) { return d.Absent(), nil },
	} {
		if empty, err := do(); err != nil || !empty {
			t.Errorf("%s: nothing is there: %t, %v", name, empty, err)
		}
	}
	for name, do := range map[string]func() error{
		"Supported": func() error { return d.Supported(Table{}) },
		"Ensure":    func() error { _, err := d.Ensure(); return err },
		"PutLinks":  func() error { return d.PutLinks(links, time.Minute) },
	} {
		if err := do(); !errors.Is(err, ErrAbsent) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if asked != 1 {
		t.Errorf("the kernel was asked %d times", asked)
	}
	now += absentFor
	if !d.Absent() || asked != 2 {
		t.Errorf("after %v it was asked %d times", absentFor, asked)
	}
	answer, now = nil, now+absentFor
	for range 2 {
		if d.Absent() {
			t.Error("it is absent once it is there")
		}
	}
	if asked != 4 {
		t.Errorf("once it is there, it was asked %d times in all", asked)
	}
}

// What the kernel fails to answer says nothing about the next time.
//
// Mutant killed: failures-are-absence.
func TestFailedQuestionIsAskedAgain(t *testing.T) {
	asked := 0
	a := absence{
		read: func() (uint32, error) { asked++; return 0, errors.New("no memory") },
		now:  func() time.Duration { return 0 },
	}
	for range 3 {
		if _, err := a.generation(); err == nil || errors.Is(err, ErrAbsent) {
			t.Errorf("the error is %v", err)
		}
	}
	if asked != 3 {
		t.Errorf("the kernel was asked %d times", asked)
	}
}
