package agent

import (
	"net/netip"
	"strings"
	"testing"
	"time"
)

// validOptions are options with nothing wrong.
func validOptions() Options {
	return Options{NodeName: "node1", ResyncPeriod: time.Second, ProbePort: DefaultProbePort, Kernel: DefaultKernelOptions()}
}

// TestValidate: what is wrong with the options is reported by flag, value and
// remedy.
func TestValidate(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(*Options)
		want   []string
	}{
		"nothing":                     {func(*Options) {}, nil},
		"no endpoints":                {func(o *Options) { o.MetricsAddress, o.HealthAddress = "0", "0" }, nil},
		"no node":                     {func(o *Options) { o.NodeName = "" }, []string{"--node-name is empty: give the name"}},
		"an address without a colon":  {func(o *Options) { o.MetricsAddress = "9792" }, []string{`--metrics-bind-address "9792": give host:port`}},
		"a health address":            {func(o *Options) { o.HealthAddress = "here" }, []string{`--health-probe-bind-address "here": give host:port`}},
		"a short resync period":       {func(o *Options) { o.ResyncPeriod = time.Millisecond }, []string{"--resync-period 1ms: give a duration from 100ms to 1h0m0s"}},
		"a long resync period":        {func(o *Options) { o.ResyncPeriod = 2 * time.Hour }, []string{"--resync-period 2h0m0s: give"}},
		"a short probe interval":      {func(o *Options) { o.ProbeInterval = time.Millisecond }, []string{"--probe-interval 1ms: give a duration such as 200ms", "within 10ms and 1m"}},
		"an interval without probes":  {func(o *Options) { o.ProbeInterval, o.ProbePort = time.Millisecond, 0 }, nil},
		"a negative withdrawal":       {func(o *Options) { o.WithdrawAfter = -time.Second }, []string{"--withdraw-after -1s: give a duration, or 0 for never"}},
		"a short absence":             {func(o *Options) { o.AwayAfter = time.Second }, []string{"--away-after 1s: give a duration from 10s, or 0 for never"}},
		"an unknown ARP probe":        {func(o *Options) { o.ARPProbe = "no" }, []string{`--arp-probe "no": use one of [strict warn off]`}},
		"a bad pattern of interfaces": {func(o *Options) { o.EgressInterfaces = []string{"eth1", "["} }, []string{`--egress-interfaces "[": give names of interfaces such as eth1`}},
		"an empty interface":          {func(o *Options) { o.EgressInterfaces = []string{""} }, []string{`--egress-interfaces "": give`}},
		"none and another interface":  {func(o *Options) { o.EgressInterfaces = []string{"none", "eth1"} }, []string{"--egress-interfaces none,eth1: none stands alone"}},
		"interfaces":                  {func(o *Options) { o.EgressInterfaces = []string{"auto", "br-*"} }, nil},
		"a short announce interval":   {func(o *Options) { o.AnnounceInterval = 1 }, []string{"--announce-interval 1ns: give a duration from 1s, or 0 for none"}},
		"a narrow mask":               {func(o *Options) { o.Kernel.MarkMask = 3 }, []string{"--mark-mask 0x3: give more bits, such as 0x1f7f", "at least 3 bits"}},
		"an unknown backend":          {func(o *Options) { o.Kernel.Backend = "ebtables" }, []string{`--backend "ebtables": use one of [auto nftables iptables iptables-nft iptables-legacy iptables-both]`}},
		"everything": {
			func(o *Options) {
				*o = Options{MetricsAddress: "m", HealthAddress: "h", ProbePort: 1, ProbeInterval: time.Hour, WithdrawAfter: -1}
			},
			[]string{
				"--node-name", "--metrics-bind-address", "--health-probe-bind-address", "--resync-period",
				"--probe-interval", "--withdraw-after", "--mark-mask", "--backend",
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := validOptions()
			c.change(&o)
			expect(t, o.Validate(), c.want)
		})
	}
}

func TestValidateLock(t *testing.T) {
	t.Parallel()
	valid := LockOptions{Pods: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")}, Kernel: DefaultKernelOptions()}
	expect(t, valid.Validate(), nil)
	expect(t, LockOptions{Kernel: DefaultKernelOptions()}.Validate(), []string{"--cluster-cidrs is empty: give"})
	expect(t, LockOptions{}.Validate(), []string{"--cluster-cidrs", "--mark-mask", "--backend"})
}

// TestInvalidOptionsChangeNothing: whatever takes options refuses what is wrong with
// them before it touches the kernel or contacts the API server.
func TestInvalidOptionsChangeNothing(t *testing.T) {
	t.Parallel()
	want := []string{"--mark-mask 0x0"}
	expect(t, Run(t.Context(), nil, Options{}), want)
	expect(t, Lock(t.Context(), LockOptions{}), want)
	expect(t, Cleanup(t.Context(), KernelOptions{}), want)
	_, err := Leftovers(t.Context(), KernelOptions{})
	expect(t, err, want)
}

// expect checks that an error holds the given words, or is nil for none.
func expect(t *testing.T, err error, want []string) {
	t.Helper()
	if want == nil && err != nil {
		t.Errorf("error: %v, want none", err)
	}
	for _, w := range want {
		if err == nil || !strings.Contains(err.Error(), w) {
			t.Errorf("%q is not in: %v", w, err)
		}
	}
}
