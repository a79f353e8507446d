package metric

import (
	"strings"
	"testing"
)

// No library has a prefix that would hide a metric of ours.
func TestLibrariesHideNothing(t *testing.T) {
	t.Parallel()
	for _, l := range Libraries() {
		if !strings.HasSuffix(l.Prefix, "_") || strings.HasPrefix(l.Prefix, "egressip") || l.Of == "" || l.Says == "" {
			t.Errorf("%+v", l)
		}
	}
}
