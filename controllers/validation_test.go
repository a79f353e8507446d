package controllers_test

import (
	"fmt"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
)

// TestValidation: the API server refuses what can mean nothing, with a message
// that names the value and says what is accepted.
func TestValidation(t *testing.T) {
	a := startAPI(t)
	namespace := func(change func(*v1.NetNamespace)) *v1.NetNamespace {
		n := &v1.NetNamespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}, NetName: "shop", NetID: new(uint32(7305526))}
		change(n)
		return n
	}
	host := func(change func(*v1.HostSubnet)) *v1.HostSubnet {
		h := &v1.HostSubnet{
			ObjectMeta: metav1.ObjectMeta{Name: "node1"},
			Host:       "node1", HostIP: "192.168.7.11", Subnet: "10.254.1.0/24",
		}
		change(h)
		return h
	}
	requests := func(ips ...string) *v1.NetNamespace {
		return namespace(func(n *v1.NetNamespace) { n.EgressIPs = ips })
	}
	claims := func(ips ...string) *v1.HostSubnet { return host(func(h *v1.HostSubnet) { h.EgressIPs = ips }) }
	ranges := func(cidrs ...string) *v1.HostSubnet {
		return host(func(h *v1.HostSubnet) { h.EgressCIDRs = cidrs })
	}
	many := func(count int, format string) []string {
		var all []string
		for i := range count {
			all = append(all, fmt.Sprintf(format, i/256, i%256))
		}
		return all
	}
	const bare = "give a bare IPv4 or IPv6 address, such as 192.168.7.200 or 2001:db8:7::200"
	const address = "give an IPv4 or IPv6 address, such as 192.168.7.200, 192.168.7.200/24 or 2001:db8:7::200"
	const cidr = "give an IPv4 or IPv6 CIDR without host bits"

	for _, tc := range []struct {
		name   string
		object client.Object
		// refused are parts of the message; none where the object is accepted.
		refused []string
	}{
		{"no egress IP", requests(), nil},
		{"one", requests("192.168.7.200"), nil},
		{"as many as a namespace may have", requests(many(256, "10.1.%d.%d")...), nil},
		{"more", requests(many(257, "10.1.%d.%d")...), []string{"egressIPs", "257", "at most 256"}},
		{"request with prefix", requests("192.168.7.200", "10.66.140.100/32"), []string{`egressIPs[1]`, `"10.66.140.100/32"`, bare}},
		{"request of letters", requests("a.b.c.d"), []string{`"a.b.c.d"`, bare}},
		{"request out of range", requests("256.256.256.256"), []string{`"256.256.256.256"`, bare}},
		{"request with sign", requests("10.10.10.-1"), []string{`"10.10.10.-1"`, bare}},
		{"request too short", requests("10.1.1"), []string{`"10.1.1"`, bare}},
		{"empty request", requests(""), []string{`""`, bare}},
		{"request with leading zero", requests("192.168.07.200"), []string{`"192.168.07.200"`, bare}},
		{"request with space", requests(" 192.168.7.200"), []string{`" 192.168.7.200"`, bare}},
		{"IPv6 request", requests("2001:db8:7::200"), nil},
		{"IPv6 request in another form", requests("2001:DB8:7:0:0:0:0:0200"), nil},
		{"both families", requests("192.168.7.200", "2001:db8:7::200"), nil},
		{"as many IPv6 addresses", requests(many(256, "2001:0db8:0007:0000:0000:0000:%04x:%04x")...), nil},
		{"IPv6 request with prefix", requests("2001:db8:7::200/64"), []string{`"2001:db8:7::200/64"`, bare}},
		{"IPv6 request with zone", requests("fe80::1%eth0"), []string{`"fe80::1%eth0"`, bare, "without prefix length or zone"}},
		{"IPv6 request in brackets", requests("[2001:db8:7::200]"), []string{`"[2001:db8:7::200]"`, bare}},
		{"mapped IPv6 request", requests("::ffff:192.168.7.200"), []string{`"::ffff:192.168.7.200"`, bare, "IPv4 not in the form of IPv6"}},
		{"mapped IPv6 request in hexadecimal", requests("::ffff:c0a8:7c8"), []string{`"::ffff:c0a8:7c8"`, bare}},
		{"request twice", requests("192.168.7.200", "192.168.7.201", "192.168.7.200"), []string{`"192.168.7.200" is listed more than once`}},
		{"IPv6 request twice, in two forms", requests("2001:db8:7::200", "192.168.7.200", "2001:DB8:7:0::200"), []string{"list each egress IP once, in one form"}},
		// Of no use, and told in the status: OpenShift accepted them.
		{"loopback", requests("127.0.0.1"), nil},
		{"broadcast", requests("255.255.255.255"), nil},
		{"useless IPv6 addresses", requests("::", "::1", "ff02::1", "fe80::1"), nil},
		{"netid 0", namespace(func(n *v1.NetNamespace) { n.NetID = new(uint32(0)) }), nil},
		{"greatest netid", namespace(func(n *v1.NetNamespace) { n.NetID = new(uint32(v1.MaxNetID)) }), nil},
		{"netid too great", namespace(func(n *v1.NetNamespace) { n.NetID = new(uint32(1 << 24)) }), []string{"netid", "16777216", "less than or equal to 16777215"}},
		{"other netname", namespace(func(n *v1.NetNamespace) { n.NetName = "stop" }), []string{"netname", `"stop"`, `give "shop"`}},

		{"claim", claims("192.168.7.200"), nil},
		{"claim with prefix", claims("192.168.7.200/24"), nil},
		{"as many as a host may have", claims(many(512, "10.1.%d.%d/16")...), nil},
		{"more claims", claims(many(513, "10.1.%d.%d")...), []string{"egressIPs", "513", "at most 512"}},
		{"claim with bad prefix", claims("192.168.7.200/33"), []string{`"192.168.7.200/33"`, address}},
		{"claim of letters", claims("abcd"), []string{`"abcd"`, address}},
		{"IPv6 claim", claims("2001:db8:7::200", "192.168.7.200"), nil},
		{"IPv6 claim with prefix", claims("2001:DB8:7::200/64"), nil},
		{"as many IPv6 claims", claims(many(512, "2001:0db8:0007:0000:0000:0000:%04x:%04x/128")...), nil},
		{"IPv6 claim with bad prefix", claims("2001:db8:7::200/129"), []string{`"2001:db8:7::200/129"`, address}},
		{"IPv6 claim with zone", claims("fe80::1%eth0"), []string{`"fe80::1%eth0"`, address, "without zone"}},
		{"mapped IPv6 claim", claims("::ffff:192.168.7.200"), []string{`"::ffff:192.168.7.200"`, address, "IPv4 not in the form of IPv6"}},
		{"mapped IPv6 claim with prefix", claims("::ffff:192.168.7.200/120"), []string{`"::ffff:192.168.7.200/120"`, address}},
		{"IPv6 claim twice, in two forms", claims("2001:db8:7::200", "2001:DB8:7:0::200/64"), []string{"list each egress IP once, in one form"}},
		{"claim with three digits and zeros", claims("192.168.007.200"), []string{`"192.168.007.200"`, address}},
		{"claim twice", claims("192.168.7.200", "192.168.7.200"), []string{"192.168.7.200 is listed more than once"}},
		{"claim with and without prefix", claims("192.168.7.201", "192.168.7.200", "192.168.7.200/24"), []string{"192.168.7.200 is listed more than once"}},
		{"claim that is useless", claims("0.0.0.0", "224.0.0.1", "fe80::5054:ff:fedd:3698"), nil},
		{"range", ranges("192.168.7.0/24"), nil},
		{"range of everything", ranges("0.0.0.0/0"), nil},
		{"range with host bits", ranges("192.168.7.200/24"), []string{`"192.168.7.200/24" has host bits`, "192.168.7.128/25"}},
		{"range too long", ranges("192.168.7.0/33"), []string{`"192.168.7.0/33"`, cidr}},
		{"range too short", ranges("10.1.1/24"), []string{`"10.1.1/24"`, cidr}},
		{"range without prefix", ranges("192.168.7.200"), []string{`"192.168.7.200"`, cidr}},
		{"IPv6 range", ranges("192.168.7.128/25", "fd00::/64"), nil},
		{"IPv6 range in another form", ranges("2001:DB8:7:0::/64"), []string{`"2001:DB8:7:0::/64"`, "not in canonical form"}},
		{"IPv6 range of everything", ranges("::/0"), nil},
		{"as many ranges as a host may have", ranges(many(256, "2001:db8:7:1:1:1:1%x:1%x/128")...), nil},
		{"IPv6 range with host bits", ranges("2001:db8:7::200/64"), []string{`"2001:db8:7::200/64" has host bits`, "2001:db8:7::100/120"}},
		{"IPv6 range with zone", ranges("fe80::%eth0/64"), []string{`"fe80::%eth0/64"`, cidr}},
		{"mapped IPv6 range", ranges("::ffff:192.168.7.0/120"), []string{`"::ffff:192.168.7.0/120"`, cidr}},
		{"range twice", ranges("192.168.7.0/24", "192.168.7.0/24"), []string{`"192.168.7.0/24" is listed more than once`}},
		{"IPv6 range twice", ranges("2001:db8:7::/64", "2001:db8:7::/64"), []string{`"2001:db8:7::/64" is listed more than once`}},
		{"other host", host(func(h *v1.HostSubnet) { h.Host = "node2" }), []string{"host", `"node2"`, `give "node1"`}},
		{"hostIP is a name", host(func(h *v1.HostSubnet) { h.HostIP = "node1" }), []string{"hostIP", `"node1"`, "bare address, such as 192.168.7.11"}},
		{"hostIP of IPv6", host(func(h *v1.HostSubnet) { h.HostIP = "2001:db8:7::11" }), nil},
		{"hostIP of IPv6, a unique local one", host(func(h *v1.HostSubnet) { h.HostIP = "fd00:7::11" }), nil},
		{"hostIP of IPv6 in another form", host(func(h *v1.HostSubnet) { h.HostIP = "2001:DB8:7:0::11" }), []string{"hostIP", "in canonical form"}},
		{"hostIP that is link-local", host(func(h *v1.HostSubnet) { h.HostIP = "fe80::11" }), []string{"hostIP", `"fe80::11"`}},
		{"hostIP that is mapped", host(func(h *v1.HostSubnet) { h.HostIP = "::ffff:192.168.7.11" }), []string{"hostIP", `"::ffff:192.168.7.11"`}},
		{"hostIP with a zone", host(func(h *v1.HostSubnet) { h.HostIP = "fe80::11%eth0" }), []string{"hostIP", `"fe80::11%eth0"`}},
		{"subnet is not known", host(func(h *v1.HostSubnet) { h.Subnet = "" }), nil},
		{"subnet with host bits", host(func(h *v1.HostSubnet) { h.Subnet = "10.254.1.1/24" }), []string{"subnet", `"10.254.1.1/24"`, "give an IPv4 CIDR without host bits"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := a.Create(t.Context(), tc.object)
			if err == nil {
				err = a.Delete(t.Context(), tc.object)
			}
			if tc.refused == nil {
				if err != nil {
					t.Fatalf("refused: %v", err)
				}
				return
			}
			if !apierrors.IsInvalid(err) {
				t.Fatalf("got error %v, want one that says invalid", err)
			}
			for _, part := range tc.refused {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("the message does not contain %s: %v", part, err)
				}
			}
		})
	}
}

// openshiftYAML is what "oc get netnamespace,hostsubnet -o yaml" prints.
const openshiftYAML = `
apiVersion: v1
kind: List
items:
- apiVersion: network.openshift.io/v1
  egressIPs:
  - 192.168.7.200
  kind: NetNamespace
  metadata:
    annotations:
      netnamespace.network.openshift.io/multicast-enabled: "true"
    creationTimestamp: "2021-05-05T09:49:54Z"
    generation: 2
    name: egress-test
    resourceVersion: "139123"
    uid: 0e1f5f2c-1f40-4d55-9f0a-6dbd1c2f9d11
  netid: 7305526
  netname: egress-test
- apiVersion: network.openshift.io/v1
  egressIPs:
  - 192.168.7.200
  host: worker2
  hostIP: 192.168.7.13
  kind: HostSubnet
  metadata:
    annotations:
      pod.network.openshift.io/node-uid: 4bd7a8a9-9d6c-4bd4-8ea9-1f1f6f9b8c3e
    creationTimestamp: "2021-05-05T09:41:02Z"
    generation: 3
    name: worker2
    resourceVersion: "139456"
    uid: 6a1f1a9e-7d0c-4a2b-8f3d-2f9f5a1b7c22
  subnet: 10.254.5.0/24
- apiVersion: network.openshift.io/v1
  egressCIDRs:
  - 192.168.7.0/24
  egressIPs: []
  host: worker1
  hostIP: 192.168.7.12
  kind: HostSubnet
  metadata:
    name: worker1
  subnet: 10.254.4.0/24
`

// TestOpenShiftYAML: what an OpenShift cluster printed is applied as it is, and
// kubectl get shows it in OpenShift's columns.
func TestOpenShiftYAML(t *testing.T) {
	a := startAPI(t)
	// Every API server refuses the identity of another cluster's object; the
	// fields of the objects stay as they are.
	applied := strings.NewReplacer(
		"    uid: 0e1f5f2c-1f40-4d55-9f0a-6dbd1c2f9d11\n", "",
		"    uid: 6a1f1a9e-7d0c-4a2b-8f3d-2f9f5a1b7c22\n", "",
		"    resourceVersion: \"139123\"\n", "", "    resourceVersion: \"139456\"\n", "",
	).Replace(openshiftYAML)
	for _, how := range [][]string{{"apply", "-f", "-"}, {"apply", "--server-side", "--force-conflicts", "-f", "-"}} {
		if out, err := a.kubectl(t, applied, how...); err != nil {
			t.Fatalf("kubectl %v: %v\n%s", how, err, out)
		}
	}
	for _, tc := range []struct {
		resource, want string
	}{
		{"netnamespace", `
NAME          NETID     EGRESS IPS
egress-test   7305526   ["192.168.7.200"]
`},
		{"hostsubnet", `
NAME      HOST      HOST IP        SUBNET          EGRESS CIDRS         EGRESS IPS
worker1   worker1   192.168.7.12   10.254.4.0/24   ["192.168.7.0/24"]   []
worker2   worker2   192.168.7.13   10.254.5.0/24                        ["192.168.7.200"]
`},
	} {
		out, err := a.kubectl(t, "", "get", tc.resource)
		if err != nil {
			t.Fatalf("kubectl get %s: %v\n%s", tc.resource, err, out)
		}
		if got := "\n" + out; got != tc.want {
			t.Errorf("kubectl get %s prints:%s\nwant:%s", tc.resource, got, tc.want)
		}
	}
	wide, err := a.kubectl(t, "", "get", "netnamespace,hostsubnet", "-o", "wide")
	if err != nil {
		t.Fatal(err)
	}
	for _, column := range []string{"ACTIVE IP", "REASON", "ONLINE", "AGENT"} {
		if !strings.Contains(wide, column) {
			t.Errorf("kubectl get -o wide has no column %s:\n%s", column, wide)
		}
	}
}
