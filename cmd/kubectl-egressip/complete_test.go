package main

import "testing"

// TestCompletion: shells complete names of the cluster.
func TestCompletion(t *testing.T) {
	t.Parallel()
	s := startServer(t, "crd")
	s.cluster(t)
	for _, c := range []struct {
		args      []string
		want, not []string
	}{
		{[]string{"hosts", ""}, []string{"node1\nnode2\n"}, nil},
		{[]string{"hosts", "node1", ""}, nil, []string{"node2"}},
		{[]string{"evacuate", "node2"}, []string{"node2\n"}, []string{"node1"}},
		{[]string{"plan", "--without", ""}, []string{"node1\nnode2\n"}, nil},
		{[]string{"status", "s"}, []string{"shop\n"}, []string{"test"}},
		{[]string{"explain", ""}, []string{"free\nip/10.1.8.200\nip/10.1.8.201\nshop\ntest\n"}, nil},
	} {
		out, _ := runPlugin(t, "", append([]string{"__complete", "--kubeconfig", s.kubeconfig}, c.args...)...)
		check(t, out, c.want, c.not)
	}
}
