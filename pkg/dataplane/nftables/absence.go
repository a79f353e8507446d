package nftables

import (
	"errors"
	"time"
)

// ErrAbsent is the error of a kernel without nf_tables.
var ErrAbsent = errors.New("the kernel has no nftables")

// absentFor is how long a kernel without nf_tables is taken not to have got it.
const absentFor = 10 * time.Second

// absence remembers that the kernel has no nf_tables. Each question to one that has not makes it look
// for the module: it starts modprobe, and the caller waits.
type absence struct {
	// read asks the kernel for its generation of rules. now is a clock that nobody sets.
	read func() (uint32, error)
	now  func() time.Duration
	// until is when the kernel is asked again; nil where it was not found to be without nf_tables.
	until *time.Duration
}

// generation reads the number of the kernel's present generation of rules. The error wraps ErrAbsent
// where the kernel has no nf_tables, or had none a short while ago.
func (a *absence) generation() (uint32, error) {
	if a.until != nil && a.now() < *a.until {
		return 0, ErrAbsent
	}
	a.until = nil
	generation, err := a.read()
	if errors.Is(err, ErrAbsent) {
		a.until = new(a.now() + absentFor)
	}
	return generation, err
}

// Absent reports whether the kernel has no nf_tables, as of a short while ago at the earliest.
func (d *Driver) Absent() bool {
	_, err := d.absence.generation()
	return errors.Is(err, ErrAbsent)
}
