package clock

import "testing"

// The clock runs, and never goes back.
func TestMonotonic(t *testing.T) {
	last := Monotonic()
	if last <= 0 {
		t.Fatalf("the clock says %v", last)
	}
	for range 1000 {
		now := Monotonic()
		if now < last {
			t.Fatalf("%v after %v", now, last)
		}
		last = now
	}
}
