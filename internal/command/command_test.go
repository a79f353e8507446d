package command

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log"
	"log/slog"
	"strings"
	"testing"

	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
)

// execute runs the program with arguments, and returns its output and error.
func execute(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	cmd := New("")
	cmd.SetOut(&out)
	cmd.SetErr(&out)
	cmd.SetArgs(args)
	err := cmd.ExecuteContext(t.Context())
	return out.String(), err
}

// TestBadFlags: the error names the flag and the value, and says what to give
// instead, for all flags that are wrong at once.
func TestBadFlags(t *testing.T) {
	t.Setenv("NODE_NAME", "")
	t.Setenv("KUBECONFIG", "")
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	for args, want := range map[string][]string{
		"agent":                                              {"--node-name", "NODE_NAME"},
		"agent --node-name=a":                                {"--kubeconfig", "service account"},
		"agent --kubeconfig=/none":                           {"--node-name"},
		"controller --kubeconfig=none":                       {"--kubeconfig none", "no such file"},
		"agent --node-name=a --resync-period=1ms":            {"--resync-period 1ms", "100ms"},
		"agent --cluster-cidrs=10.0.0.0/33":                  {"--cluster-cidrs", `"10.0.0.0/33"`, "10.244.0.0/16"},
		"agent --cluster-cidrs=10.0.0.1/8":                   {"--cluster-cidrs", "host bits", "10.0.0.0/8"},
		"agent --cluster-cidrs=10.0.0.0/8,0.0.0.0/0":         {"--cluster-cidrs", `"0.0.0.0/0"`, "every address"},
		"agent --service-cidrs=::ffff:10.96.0.0/108":         {"--service-cidrs", `"::ffff:10.96.0.0/108"`, "IPv4"},
		"agent --service-cidrs=fd00::/64":                    {"--node-name"},
		"agent --exclude-cidrs=0.0.0.0/0":                    {"--exclude-cidrs", `"0.0.0.0/0"`, "every address"},
		"agent --include-cidrs=::/0":                         {"--include-cidrs", `"::/0"`, "every address"},
		"agent --node-name=a --include-cidrs=" + scattered(): {"--include-cidrs", "no more than 512 networks", "fewer or larger"},
		"agent --mark-mask=0x3":                              {"--mark-mask", "0x3", "3 bits"},
		"agent --mark-mask=many":                             {"--mark-mask", `"many"`, "0x1f7f"},
		"agent --arp-probe=no":                               {"--arp-probe", `"no"`, "strict, warn, off"},
		"agent --arp-ignore-macs=12:34":                      {"--arp-ignore-macs", `"12:34"`, "12:34:56:78:9a:bc"},
		"agent --announce-interval=1ms --node-name=a":        {"--announce-interval 1ms", "1s"},
		"agent --backend=ebtables":                           {"--backend", `"ebtables"`, "auto, nftables, iptables, iptables-nft, iptables-legacy, iptables-both"},
		"agent --iptables-backend=ebtables":                  {"--iptables-backend", `"ebtables"`, "auto, nft, legacy, both", "--backend"},
		"agent --overlay-port=99999":                         {"--overlay-port", `"99999"`},
		"agent --log-format=xml":                             {"--log-format", `"xml"`, "text, json"},
		"cleanup --v=99":                                     {"--v 99", "0 to 10"},
		"controller --default-capacity=-1 --kubeconfig=":     {"--kubeconfig"},
		"check --within=0s":                                  {"--within 0s", "greater than 0"},
		"check --kubeconfig=none":                            {"--kubeconfig none", "no such file"},
		"controller --kubeconfig=none --default-capacity=-1 --kube-api-qps=-1 --kube-api-burst=-1 --probe-interval=1ms": {
			"--kubeconfig none", "--default-capacity -1", "--kube-api-qps -1", "--kube-api-burst -1", "--probe-interval 1ms",
		},
		"agent --kubeconfig=none --resync-period=1ms --withdraw-after=-1s --mark-mask=0x3 --metrics-bind-address=9792": {
			"--kubeconfig none", "--node-name", "--resync-period 1ms", "--withdraw-after -1s", "--mark-mask 0x3", `--metrics-bind-address "9792"`,
		},
		"lock --mark-mask=0x3":    {"--cluster-cidrs is empty", "10.244.0.0/16", "--mark-mask 0x3"},
		"lock install":            {"--cluster-cidrs is empty", "10.244.0.0/16"},
		"cleanup --mark-mask=0x3": {"--mark-mask 0x3", "3 bits"},
		"agent stray":             {"stray"},
		"stray":                   {"stray"},
	} {
		t.Run(args, func(t *testing.T) {
			out, err := execute(t, strings.Fields(args)...)
			if err == nil {
				t.Fatalf("no error; output:\n%s", out)
			}
			for _, w := range want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("%q is not in: %v", w, err)
				}
			}
		})
	}
}

func TestVersion(t *testing.T) {
	t.Parallel()
	out, err := execute(t, "version")
	if err != nil || !strings.HasPrefix(out, "egressip-operator ") || !strings.Contains(out, " go1.") {
		t.Errorf("%q, %v", out, err)
	}
}

// TestOneLog: our lines, and those of libraries that log in three other ways,
// come out as JSON on one stream, and verbosity counts for all.
func TestOneLog(t *testing.T) {
	var out bytes.Buffer
	cmd := New("")
	cmd.SetErr(&out)
	cmd.SetContext(t.Context())
	before := slog.Default()
	t.Cleanup(func() { slog.SetDefault(before) })

	ctx, err := (&loggingOptions{format: "json", verbose: 2}).start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	ctrl.LoggerFrom(ctx).Info("ours", "node", "a")
	ctrl.LoggerFrom(ctx).WithName("library").V(2).Info("controller-runtime's")
	ctrl.LoggerFrom(ctx).V(3).Info("too much")
	klog.InfoS("client-go's")
	klog.V(2).InfoS("client-go's, verbose")
	klog.V(3).InfoS("too much")
	log.Print("somebody else's")
	klog.Flush()

	var got []string
	for line := range strings.Lines(out.String()) {
		var entry struct{ Msg string }
		if err := json.Unmarshal([]byte(line), &entry); err != nil {
			t.Fatalf("%q is no JSON: %v", line, err)
		}
		got = append(got, entry.Msg)
	}
	want := "ours|controller-runtime's|client-go's|client-go's, verbose|somebody else's"
	if strings.Join(got, "|") != want {
		t.Errorf("logged %q, want %q", got, want)
	}
}

// scattered are networks of which all others are too many for the kernel.
func scattered() string {
	var list []string
	for i := range 32 {
		list = append(list, fmt.Sprintf("2001:db8:%x:7::1/128", i))
	}
	return strings.Join(list, ",")
}
