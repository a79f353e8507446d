package egress_test

import (
	"testing"

	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

func TestLookUpByName(t *testing.T) {
	t.Parallel()
	c := egress.Cluster{
		Groups: []egress.Group{{Name: "a", NetID: 1}, {Name: "b", NetID: 2}, {Name: "d", NetID: 4}},
		Hosts:  []egress.Host{{Name: "a"}, {Name: "b"}, {Name: "d"}},
	}
	r := egress.Resolve(c)
	for _, name := range []string{"a", "b", "d"} {
		namespace, ok := r.Group(name)
		if !ok || namespace.Name != name {
			t.Errorf("namespace %s of the resolution: got %q, %t", name, namespace.Name, ok)
		}
		result, ok := r.Host(name)
		if !ok || result.Name != name {
			t.Errorf("host %s of the resolution: got %q, %t", name, result.Name, ok)
		}
		host, ok := c.Host(name)
		if !ok || host.Name != name {
			t.Errorf("host %s of the cluster: got %q, %t", name, host.Name, ok)
		}
	}
	for _, name := range []string{"", "0", "c", "e"} {
		if _, ok := r.Group(name); ok {
			t.Errorf("the resolution has a namespace %q", name)
		}
		if _, ok := r.Host(name); ok {
			t.Errorf("the resolution has a host %q", name)
		}
		if _, ok := c.Host(name); ok {
			t.Errorf("the cluster has a host %q", name)
		}
	}
}
