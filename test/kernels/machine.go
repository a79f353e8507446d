package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/egressip-operator/egressip-operator/test/kernels/internal/plan"
)

// boots are the modules that a guest needs before it has the host's root.
func boots() []string {
	return []string{"crc32c_generic", "virtio_pci", "9pnet_virtio", "9p", "overlay"}
}

// wanted are the modules to load in addition before any test. The kernel would load most
// of them on demand, but for that it starts a program each time, which takes long here.
func wanted() []string {
	return strings.Fields(`vxlan veth bridge br_netfilter sch_ingress cls_bpf cls_u32 nfnetlink nf_conntrack nf_conntrack_netlink nf_nat
		ip_tables iptable_raw iptable_mangle iptable_nat iptable_filter ip6_tables ip6table_raw ip6table_mangle ip6table_nat ip6table_filter
		ip_set ip_set_hash_ip ip_set_hash_net ip_set_hash_netnet ip_set_hash_ipportip xt_set xt_mark xt_conntrack xt_comment xt_addrtype xt_tcpudp xt_multiport
		xt_MASQUERADE xt_nat xt_TCPMSS xt_connmark xt_CT ipt_REJECT nf_reject_ipv4
		nf_tables nft_compat nft_ct nft_nat nft_chain_nat nft_masq nft_reject nft_reject_inet nft_reject_ipv4 nft_fib_inet nft_limit nft_log nft_meta_bridge
		ip_vs ip_vs_rr ip_vs_sh xt_ipvs 8021q dummy`)
}

// without returns the files of modules that are, or depend on, none of those to refuse.
func without(order []string, dependencies string, refuse []string) ([]string, error) {
	var kept []string
	for _, file := range order {
		all, err := loadingOrder(dependencies, moduleName(file))
		if err != nil {
			return nil, err
		}
		if !slices.ContainsFunc(all, func(f string) bool { return slices.Contains(refuse, moduleName(f)) }) {
			kept = append(kept, file)
		}
	}
	return kept, nil
}

// upWithin is how long a guest may take to boot; spare is what its time limit has in
// addition.
const (
	upWithin = 10 * time.Minute
	spare    = 2 * time.Minute
)

// guest is one virtual machine.
type guest struct {
	// tree is the unpacked package of its kernel, release the kernel's.
	tree, release string
	// guestProgram is its first process, kmod an unpacked kmod.
	guestProgram, kmod string
	// out is the folder of the host that takes its output, work one for other files.
	out, work string
	memory    int
}

// release finds the kernel's release, such as 6.1.0-56-amd64, in its unpacked package.
func release(tree string) (string, error) {
	found, err := filepath.Glob(filepath.Join(tree, "boot", "vmlinuz-*"))
	if err != nil || len(found) != 1 {
		return "", fmt.Errorf("kernels in %s: %v, %w", tree, found, err)
	}
	return strings.TrimPrefix(filepath.Base(found[0]), "vmlinuz-"), nil
}

// prepare writes the initramfs, with the plan for the guest in it.
func (g guest) prepare(ctx context.Context, p plan.Plan) (string, error) {
	p.Tree, p.Kmod = g.tree, g.kmod
	modules := filepath.Join(g.tree, "lib/modules", g.release)
	dependencies, err := os.ReadFile(filepath.Join(modules, "modules.dep"))
	if err != nil {
		return "", err
	}
	files, err := loadingOrder(string(dependencies), append(boots(), wanted()...)...)
	if err == nil {
		files, err = without(files, string(dependencies), p.Refuse)
	}
	if err != nil {
		return "", err
	}
	var i image
	for _, dir := range []string{"dev", "proc", "sys", "lower", "memory", "new", plan.ModuleDir} {
		i.add(dir, modeDir, nil)
	}
	// A console before there is devtmpfs.
	i.entry("dev/console", modeDevice, nil, 5, 1)
	first, err := os.ReadFile(g.guestProgram)
	if err != nil {
		return "", err
	}
	i.add("init", modeProgram, first)
	for _, file := range files {
		name, content, err := readModule(ctx, filepath.Join(modules, file))
		if err != nil {
			return "", err
		}
		i.add(plan.ModuleDir+"/"+name, modeFile, content)
		p.Modules = append(p.Modules, name)
	}
	b, err := json.Marshal(p)
	if err != nil {
		return "", err
	}
	i.add(plan.File, modeFile, b)
	path := filepath.Join(g.work, "initramfs")
	return path, i.write(path)
}

// readModule reads a module, and unpacks it where it is packed.
func readModule(ctx context.Context, file string) (name string, content []byte, err error) {
	name = filepath.Base(file)
	if strings.HasSuffix(name, ".xz") {
		out, err := output(ctx, "", "xz", "-dc", file)
		return strings.TrimSuffix(name, ".xz"), []byte(out), err
	}
	content, err = os.ReadFile(file)
	return name, content, err
}

// run boots the guest and waits until it has powered off, or its time is up. What it says
// goes to progress, its console to console.log of the output.
func (g guest) run(ctx context.Context, p plan.Plan, progress io.Writer) (err error) {
	initramfs, err := g.prepare(ctx, p)
	if err != nil {
		return err
	}
	limit := upWithin + spare
	for _, r := range p.Runs {
		limit += r.Limit
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	console, err := os.Create(filepath.Join(g.out, "console.log"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, console.Close()) }()
	share := func(path, tag, more string) string {
		return fmt.Sprintf("local,path=%s,mount_tag=%s,security_model=none,multidevs=remap%s", path, tag, more)
	}
	// The kernel looks for a timer interrupt for a moment that is too short on a busy host.
	const parameters = "console=ttyS0 panic=-1 quiet loglevel=4 random.trust_cpu=on mitigations=off no_timer_check"
	cmd := exec.CommandContext(ctx, "nice", "-n", "12", "qemu-system-x86_64", "-machine", "q35,accel=tcg", "-cpu", "max", "-smp", "2", "-m", fmt.Sprint(g.memory),
		"-nographic", "-no-reboot", "-nodefaults", "-serial", "stdio", "-nic", "none",
		"-kernel", filepath.Join(g.tree, "boot/vmlinuz-"+g.release), "-initrd", initramfs,
		"-virtfs", share("/", plan.RootTag, ",readonly=on"), "-virtfs", share(g.out, plan.OutTag, ""), "-append", parameters)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = 5 * time.Second
	from, to := io.Pipe()
	cmd.Stdout, cmd.Stderr = to, to
	heard := make(chan listened, 1)
	up := make(chan struct{})
	go func() { heard <- listen(from, console, progress, up) }()
	boot := time.AfterFunc(upWithin, func() {
		select {
		case <-up:
		default:
			cancel()
		}
	})
	defer boot.Stop()
	errRun := cmd.Run()
	errPipe := to.Close()
	l := <-heard
	switch {
	case ctx.Err() != nil && !l.up:
		return fmt.Errorf("the guest was not up after %v", upWithin)
	case ctx.Err() != nil:
		return fmt.Errorf("the guest did not end: %w", ctx.Err())
	case errRun != nil:
		return fmt.Errorf("qemu: %w", errRun)
	case !l.up:
		return errors.New("the guest ended before it was up: see console.log")
	}
	return errors.Join(errPipe, l.err)
}

// listened is what was heard from a guest's console.
type listened struct {
	up  bool
	err error
}

// listen copies a console into a file, and what the guest's first process says to
// progress. It closes up with the first such line that says that the guest is up.
func listen(from io.Reader, console, progress io.Writer, up chan<- struct{}) (l listened) {
	lines := bufio.NewReader(from)
	for {
		line, err := lines.ReadString('\n')
		if _, errWrite := io.WriteString(console, line); errWrite != nil {
			l.err = errors.Join(l.err, errWrite)
		}
		if _, said, ok := strings.Cut(line, "[guest] "); ok {
			said = strings.TrimSpace(said)
			fmt.Fprintln(progress, "  "+said)
			if !l.up && strings.HasPrefix(said, "up: ") {
				l.up = true
				close(up)
			}
			if strings.HasPrefix(said, "FAILED") {
				l.err = errors.Join(l.err, errors.New(said))
			}
		}
		if err != nil {
			if !errors.Is(err, io.EOF) {
				l.err = errors.Join(l.err, err)
			}
			return l
		}
	}
}

// emptied makes an empty folder.
func emptied(parts ...string) (string, error) {
	dir := filepath.Join(slices.Concat(parts)...)
	return dir, errors.Join(os.RemoveAll(dir), os.MkdirAll(dir, 0o755))
}
