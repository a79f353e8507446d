package controllers_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/egressip-operator/egressip-operator/controllers"
)

// TestOptions: what is wrong with the options is reported by flag, value and remedy.
func TestOptions(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		options controllers.Options
		want    []string
	}{
		"nothing":               {controllers.Options{}, nil},
		"with addresses":        {controllers.Options{MetricsAddress: ":9790", HealthAddress: "0"}, nil},
		"a page beside metrics": {controllers.Options{MetricsAddress: ":9790", MetricsSecure: true, Page: true}, nil},
		"a page for everyone": {
			controllers.Options{MetricsAddress: ":9790", Page: true}, []string{"--page: the page is served beside metrics, to known clients only: set", "--metrics-secure"},
		},
		"a page nowhere": {controllers.Options{MetricsAddress: "0", MetricsSecure: true, Page: true}, []string{"--page: the page is served"}},
		"a metrics address without a colon": {
			controllers.Options{MetricsAddress: "9790"}, []string{`--metrics-bind-address "9790": give host:port`},
		},
		"a health address without a port": {
			controllers.Options{HealthAddress: "nowhere"}, []string{`--health-probe-bind-address "nowhere": give host:port`},
		},
		"a negative capacity": {
			controllers.Options{DefaultCapacity: -1}, []string{"--default-capacity -1: give a number of egress IPs, or 0"},
		},
		"a long probe interval": {
			controllers.Options{ProbeInterval: time.Hour}, []string{"--probe-interval 1h0m0s: give a duration such as 200ms", "within 10ms and 1m"},
		},
		"an IPv6 source of probes": {controllers.Options{ProbeSource: netip.MustParseAddr("fd00::1")}, nil},
		"a source of probes with a zone": {
			controllers.Options{ProbeSource: netip.MustParseAddr("fe80::1%eth0")}, []string{"--host-ip fe80::1%eth0: give an address of the node"},
		},
		"everything": {
			controllers.Options{
				MetricsAddress: "m", HealthAddress: "h", DefaultCapacity: -1,
				ProbeInterval: time.Hour, ProbeSource: netip.MustParseAddr("::ffff:192.0.2.1"),
			},
			[]string{"--metrics-bind-address", "--health-probe-bind-address", "--default-capacity", "--probe-interval", "--host-ip"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := tc.options.Validate()
			if (err == nil) != (tc.want == nil) {
				t.Fatalf("error %v, want %q", err, tc.want)
			}
			for _, want := range tc.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q is not in: %v", want, err)
				}
			}
			// Run refuses them too, before it contacts the API server.
			if err != nil {
				if got := controllers.Run(t.Context(), nil, tc.options); got == nil || got.Error() != err.Error() {
					t.Errorf("Run: %v, want %v", got, err)
				}
			}
		})
	}
}
