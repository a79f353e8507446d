package e2e

import (
	"regexp"
	"strings"
	"testing"
)

// testColumns compares kubectl's tables with OpenShift's.
func (b *bed) testColumns(t *testing.T) {
	b.givenEgressIP(t)
	for _, c := range []struct{ kind, name, header, row string }{
		{"netnamespace", egressNamespace, "NAME NETID EGRESS IPS", `^egress-test \d+ \["192\.168\.7\.200"\]$`},
		{"netnamespace", plainNamespace, "NAME NETID EGRESS IPS", `^no-egress-ip \d+( \[\])?$`},
		{
			"hostsubnet", egressHost, "NAME HOST HOST IP SUBNET EGRESS CIDRS EGRESS IPS",
			`^node3 node3 192\.168\.7\.13 10\.254\.3\.0/24 \["192\.168\.7\.200"\]$`,
		},
		{"hostsubnet", "node1", "NAME HOST HOST IP SUBNET EGRESS CIDRS EGRESS IPS", `^node1 node1 192\.168\.7\.11 10\.254\.1\.0/24( \[\])?$`},
	} {
		out, err := b.Kubectl(t.Context(), "get", c.kind, c.name)
		if err != nil {
			t.Fatal(err)
		}
		header, row, _ := strings.Cut(strings.TrimSpace(out), "\n")
		if got := strings.Join(strings.Fields(header), " "); got != c.header {
			t.Errorf("%s: columns %q, want %q", c.kind, got, c.header)
		}
		if got := strings.Join(strings.Fields(row), " "); !regexp.MustCompile(c.row).MatchString(got) {
			t.Errorf("%s: row %q, want %q", c.kind, got, c.row)
		}
	}
}

// testRefusals: kubectl refuses, names the value, and nothing changes.
func (b *bed) testRefusals(t *testing.T) {
	for _, c := range []struct{ object, patch, value string }{
		{"netnamespace/" + egressNamespace, `{"egressIPs": ["a.b.c.d"]}`, "a.b.c.d"},
		{"netnamespace/" + egressNamespace, `{"egressIPs": ["256.256.256.256"]}`, "256.256.256.256"},
		{"netnamespace/" + egressNamespace, `{"egressIPs": ["192.168.7.200/32"]}`, "192.168.7.200/32"},
		{"netnamespace/" + egressNamespace, `{"egressIPs": ["fe80::1%eth0"]}`, "fe80::1%eth0"},
		{"netnamespace/" + egressNamespace, `{"egressIPs": ["::ffff:192.168.7.200"]}`, "::ffff:192.168.7.200"},
		{"netnamespace/" + egressNamespace, `{"egressIPs": ["192.168.7.9", "192.168.7.9"]}`, "192.168.7.9"},
		{"netnamespace/" + egressNamespace, `{"netid": 16777216}`, "16777216"},
		{"netnamespace/" + egressNamespace, `{"netid": -1}`, "-1"},
		{"hostsubnet/" + egressHost, `{"egressIPs": ["test-value"]}`, "test-value"},
		{"hostsubnet/" + egressHost, `{"egressCIDRs": ["10.0.0.1/64"]}`, "10.0.0.1/64"},
		{"hostsubnet/" + egressHost, `{"egressCIDRs": ["192.168.7.1/24"]}`, "192.168.7.1/24"},
		{"hostsubnet/" + egressHost, `{"egressCIDRs": ["10.1.1/24"]}`, "10.1.1/24"},
	} {
		_, err := b.Kubectl(t.Context(), "patch", c.object, "--type=merge", "-p", c.patch)
		if err == nil {
			t.Errorf("%s: %s was accepted", c.object, c.patch)
			if _, err := b.Kubectl(t.Context(), "patch", c.object, "--type=merge", "-p", `{"egressIPs": null}`); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if !strings.Contains(err.Error(), c.value) {
			t.Errorf("%s: %s: the message does not name the value: %v", c.object, c.patch, err)
		}
	}
}
