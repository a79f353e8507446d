package testbed

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// requirement is a program, or another file, and the Debian package that has
// it.
type requirement struct {
	file    string // absolute, or to be found in PATH
	aptName string
}

func requirements() []requirement {
	return []requirement{
		{"ip", "iproute2"},
		{"tc", "iproute2"},
		{"nsenter", "util-linux"},
		{"mount", "mount"},
		{"sysctl", "procps"},
		{"containerd", "containerd"},
		{"ctr", "containerd"},
		{"containerd-shim-runc-v2", "containerd"},
		{"runc", "runc"},
		{"xtables-nft-multi", "iptables"},
		{"xtables-legacy-multi", "iptables"},
		{"ipset", "ipset"},
		{"nft", "nftables"},
		{"conntrack", "conntrack"},
		// Boots a machine of its own, in test/boot.
		{"/lib/systemd/systemd", "systemd"},
		{filepath.Join(cniDir(), "bridge"), "containernetworking-plugins"},
		{filepath.Join(cniDir(), "portmap"), "containernetworking-plugins"},
	}
}

// cniDir is where the CNI plugins are: Debian's place, else upstream's.
func cniDir() string {
	const debian, upstream = "/usr/lib/cni", "/opt/cni/bin"
	if _, err := os.Stat(filepath.Join(upstream, "bridge")); err == nil {
		if _, err := os.Stat(filepath.Join(debian, "bridge")); err != nil {
			return upstream
		}
	}
	return debian
}

// MissingPackages returns the Debian packages that this machine needs and does
// not have, sorted.
func MissingPackages() []string {
	var missing []string
	for _, r := range requirements() {
		var err error
		if filepath.IsAbs(r.file) {
			_, err = os.Stat(r.file)
		} else {
			_, err = exec.LookPath(r.file)
		}
		if err != nil {
			missing = append(missing, r.aptName)
		}
	}
	slices.Sort(missing)
	return slices.Compact(missing)
}

// CheckPrerequisites reports everything that this machine lacks for a test bed:
// rights, packages, and features of the kernel.
func CheckPrerequisites(ctx context.Context, o Options) error {
	if os.Geteuid() != 0 {
		return errors.New("test bed: needs root, for network namespaces")
	}
	if missing := MissingPackages(); len(missing) > 0 {
		return fmt.Errorf("test bed: programs are missing: apt-get install -y %s", strings.Join(missing, " "))
	}
	loadModules(ctx)
	if err := checkKernel(ctx, o); err != nil {
		return fmt.Errorf("test bed: %w", err)
	}
	return nil
}

// loadModules loads what a kernel in modules does not load by itself inside a
// network namespace. A kernel that has them built in has no such modules, so
// that failure says nothing: checkKernel does.
func loadModules(ctx context.Context) {
	modules := []string{"overlay", "br_netfilter", "nf_conntrack", "vxlan", "veth", "ip_tables", "iptable_nat", "iptable_mangle", "iptable_filter", "ip_set", "ip_set_hash_ip", "xt_set", "sch_ingress", "cls_bpf", "dummy", "ip_vs", "ip_vs_rr"}
	_ = exec.CommandContext(ctx, "modprobe", append([]string{"--all", "--quiet"}, modules...)...).Run()
}

// checkKernel tries out, in a network namespace that ends with the trial, what
// nodes need.
func checkKernel(ctx context.Context, o Options) error {
	filesystems, err := os.ReadFile("/proc/filesystems")
	if err != nil {
		return err
	}
	var errs []error
	for _, fs := range []string{"overlay", "bpf"} {
		if !slices.Contains(strings.Fields(string(filesystems)), fs) {
			errs = append(errs, fmt.Errorf("the kernel has no file system %q", fs))
		}
	}
	trials := []struct{ feature, command string }{
		{"bridges", "ip link add br0 type bridge"},
		{"veth pairs", "ip link add v0 type veth peer name v1"},
		{"VXLAN with external tunnel keys", "ip link add vx0 type vxlan external dstport 9789"},
		{"the clsact queueing discipline", "tc qdisc add dev v0 clsact"},
		{"IP sets with skbinfo", "ipset create s0 hash:ip skbinfo"},
		{"iptables in nftables, with conntrack", "iptables-nft -t nat -A POSTROUTING -m conntrack --ctdir ORIGINAL -j MASQUERADE"},
		{"the SET target", "iptables-nft -t mangle -A PREROUTING -j SET --map-set s0 src --map-mark"},
		{"conntrack by netlink", "conntrack -L"},
	}
	if o.Backend == Legacy {
		trials = append(trials, struct{ feature, command string }{"iptables-legacy", "iptables-legacy -t nat -A POSTROUTING -j MASQUERADE"})
	}
	if o.ProxyMode == ProxyIPVS {
		trials = append(trials, []struct{ feature, command string }{{"dummy devices", "ip link add d0 type dummy"}, {"IPVS", "cat /proc/net/ip_vs"}}...)
	}
	return errors.Join(append(errs, inNewNetns(func() error {
		var errs []error
		for _, t := range trials {
			args := strings.Fields(t.command)
			if out, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput(); err != nil {
				errs = append(errs, fmt.Errorf("the kernel lacks %s: %s: %w: %s", t.feature, t.command, err, strings.TrimSpace(string(out))))
			}
		}
		return errors.Join(errs...)
	}))...)
}

// inNewNetns runs f on a thread that is in a network namespace of its own,
// which has no name and ends with f and the processes that it starts.
func inNewNetns(f func() error) error {
	return inNetns("/proc/self/ns/net", func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("new network namespace: %w", err)
		}
		return f()
	})
}
