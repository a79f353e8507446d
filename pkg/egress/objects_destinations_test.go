package egress_test

import (
	"fmt"
	"strings"
	"testing"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// What cannot be used of the lists of destinations is named with object, annotation and remedy, and
// stops nothing else.
//
// Mutants killed: half-an-include-list, too-many-destinations, too-many-excluded.
func TestProblemsOfDestinations(t *testing.T) {
	const exclude, include = "annotation " + v1.AnnotationExcludeCIDRs, "annotation " + v1.AnnotationIncludeCIDRs
	list := func(format string, n int) string {
		var texts []string
		for i := range n {
			texts = append(texts, fmt.Sprintf(format, i))
		}
		return strings.Join(texts, ", ")
	}
	for _, c := range []struct {
		name             string
		exclude, include string
		// field, value and message of the only problem; none without a field.
		field, value, message string
		excluded              int
	}{
		{name: "nothing wrong", exclude: " 203.0.113.0/24 ,, 2001:db8::/32,", excluded: 1},
		{name: "no network", exclude: "10.0.0.0/40", field: exclude, value: "10.0.0.0/40", message: `"10.0.0.0/40" is not a network of IPv4 or IPv6. It is not excluded. Use a list such as`},
		{name: "IPv4 as IPv6", exclude: "::ffff:10.0.0.1", field: exclude, value: "::ffff:10.0.0.1", message: "is not a network"},
		{name: "a zone", exclude: "fe80::1%eth0", field: exclude, value: "fe80::1%eth0", message: "is not a network"},
		{
			name: "not included", include: "203.0.113.0/24 198.51.100.0/24", field: include, value: "203.0.113.0/24 198.51.100.0/24",
			message: "Until that is corrected, the egress IPs apply to all destinations.",
		},
		{name: "host bits", exclude: "203.0.113.9/24", field: exclude, value: "203.0.113.9/24", message: "has host bits. It is not excluded. Write 203.0.113.0/24, or the address alone."},
		{name: "host bits of what is included", exclude: "203.0.113.0/25", include: "0.0.0.9/0", field: include, value: "0.0.0.9/0", message: "has host bits: 0.0.0.0/0 is used", excluded: 1},
		{name: "in both", exclude: "10.0.0.0/8, 203.0.113.0/24", include: "0.0.0.0/0, 203.0.113.0/24", field: exclude, value: "203.0.113.0/24", message: "is included. Remove it from one of them", excluded: 1},
		{name: "as many as there may be", exclude: list("198.51.%d.0/32", egress.MaxDestinations), excluded: egress.MaxDestinations},
		{name: "more", exclude: list("198.51.%d.0/32", egress.MaxDestinations+1), field: exclude, value: "198.51.16.0/32", message: "there are more than 16 networks. It is not excluded.", excluded: egress.MaxDestinations},
		{name: "more are included", include: list("198.51.%d.0/32", egress.MaxDestinations+1), field: include, value: "198.51.16.0/32", message: "there are more than 16 networks. Until that is corrected"},
		{
			name: "too scattered", include: list("2001:db8:%d:7::1", 16), field: include, value: list("2001:db8:%d:7::1", 16),
			message: "to all but these destinations are more than 512 networks",
		},
	} {
		path, problems := decideDestinations(t, destinationObjects(lists(c.exclude, c.include)))
		if len(path.Excluded) != c.excluded {
			t.Errorf("%s: %d networks are excluded, want %d", c.name, len(path.Excluded), c.excluded)
		}
		if c.field == "" {
			if len(problems) > 0 {
				t.Errorf("%s: %v", c.name, problems)
			}
			continue
		}
		if len(problems) != 1 {
			t.Errorf("%s: problems %v, want one", c.name, problems)
			continue
		}
		p := problems[0]
		if p.Kind != "NetNamespace" || p.Name != "shop" || p.Field != c.field || p.Value != c.value || p.Reason != egress.ReasonBadDestinations ||
			!strings.Contains(p.Message, "NetNamespace shop, "+c.field) || !strings.Contains(p.Message, c.message) {
			t.Errorf("%s: %+v", c.name, p)
		}
	}
}
