package node

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// mounts lays out the node's private view of the file system.
type mounts struct {
	c   Config
	err error
}

// layOut makes every mount of the node. The process is in a mount namespace of
// its own.
func layOut(c Config) error {
	m := &mounts{c: c}
	m.mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
	hierarchies, err := Hierarchies()
	m.err = errors.Join(m.err, err)
	// The machine's own mounts would still be listed below ours, and their
	// references keep network namespaces alive that others have deleted.
	for _, dir := range []string{"/sys", "/run/netns", "/run"} {
		m.detach(dir)
	}
	m.systems(hierarchies)
	m.sysctls()
	m.directories()
	// The kubelet and containerd pass mounts to containers by propagation.
	m.mount("", "/", "", unix.MS_REC|unix.MS_SHARED, "")
	return m.err
}

// mount mounts, unless something before has failed.
func (m *mounts) mount(source, target, fstype string, flags uintptr, data string) {
	if m.err != nil {
		return
	}
	if err := unix.Mount(source, target, fstype, flags, data); err != nil {
		m.err = fmt.Errorf("mount %s %s on %s: %w", fstype, source, target, err)
	}
}

func (m *mounts) mkdir(path string) {
	if m.err == nil {
		m.err = os.MkdirAll(path, 0o755)
	}
}

func (m *mounts) write(path, content string) {
	if m.err == nil {
		m.err = os.WriteFile(path, []byte(content), 0o644)
	}
}

// detach takes off everything that is mounted at a directory and below.
func (m *mounts) detach(dir string) {
	for m.err == nil {
		err := unix.Unmount(dir, unix.MNT_DETACH)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
			return // no mount point, or none any more
		}
		if err != nil {
			m.err = fmt.Errorf("unmount %s: %w", dir, err)
		}
	}
}

// systems mounts /proc, /sys, the cgroups as the node's cgroup namespace shows
// them, and a bpffs. The machine's own /sys would show the machine's network
// devices and its bpffs the pins of every node.
func (m *mounts) systems(hierarchies []Hierarchy) {
	m.mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
	m.mount("sysfs", "/sys", "sysfs", 0, "")
	if len(hierarchies) == 1 && hierarchies[0].V2 {
		m.mount("cgroup2", "/sys/fs/cgroup", "cgroup2", 0, "")
		// A cgroup that has processes cannot give controllers to its children.
		m.mkdir("/sys/fs/cgroup/init")
		m.write("/sys/fs/cgroup/init/cgroup.procs", "1")
		delegate("/sys/fs/cgroup")
	} else {
		m.mount("tmpfs", "/sys/fs/cgroup", "tmpfs", 0, "mode=755")
		for _, h := range hierarchies {
			m.mkdir(h.Mount)
			options := h.Options
			if strings.HasPrefix(options, "name=") {
				options = "none," + options
			}
			m.mount("cgroup", h.Mount, "cgroup", 0, options)
		}
	}
	if _, err := os.Stat("/sys/fs/bpf"); err == nil {
		m.mount("bpf", "/sys/fs/bpf", "bpf", 0, "mode=700")
	}
}

// sysctls covers the machine-wide settings that the kubelet writes by private
// files which hold the values that it wants.
func (m *mounts) sysctls() {
	for name, value := range map[string]string{
		"vm/overcommit_memory": "1", "vm/panic_on_oom": "0", "kernel/panic": "10",
		"kernel/panic_on_oops": "1", "kernel/keys/root_maxkeys": "1000000", "kernel/keys/root_maxbytes": "25000000",
	} {
		if _, err := os.Stat("/proc/sys/" + name); err != nil {
			continue // this kernel has no such setting
		}
		file := filepath.Join(m.c.Dir, "sysctl."+strings.ReplaceAll(name, "/", "."))
		m.write(file, value+"\n")
		m.mount(file, "/proc/sys/"+name, "", unix.MS_BIND, "")
	}
}

// directories makes what the daemons write to private to the node.
func (m *mounts) directories() {
	// Copy-on-write in memory: new files and directories in them are the
	// node's alone.
	scratch := filepath.Join(m.c.Dir, "overlay")
	m.mkdir(scratch)
	m.mount("tmpfs", scratch, "tmpfs", 0, "mode=755")
	for _, dir := range []string{"/etc", "/opt", "/usr/sbin", "/var/lib", "/var/log"} {
		upper, work := filepath.Join(scratch, dir, "upper"), filepath.Join(scratch, dir, "work")
		m.mkdir(upper)
		m.mkdir(work)
		m.mount("overlay", dir, "overlay", 0, "lowerdir="+dir+",upperdir="+upper+",workdir="+work)
	}
	// These outlive a power cut. Some are large, and containerd's own overlays
	// cannot lie on another.
	for _, dir := range []string{"/var/lib/kubelet", "/var/lib/containerd", "/var/log/pods", unitDir, "/opt/egressip"} {
		source := filepath.Join(m.c.Dir, filepath.Base(dir))
		m.mkdir(source)
		m.mkdir(dir)
		m.mount(source, dir, "", unix.MS_BIND, "")
	}
	m.mount("tmpfs", "/run", "tmpfs", 0, "mode=755")
	m.mkdir("/run/netns")
	m.mkdir("/etc/cni/net.d")
	m.iptables()
}

// iptables makes the plain names mean the node's backend.
func (m *mounts) iptables() {
	backend := "xtables-nft-multi"
	if m.c.Legacy {
		backend = "xtables-legacy-multi"
	}
	for _, family := range []string{"iptables", "ip6tables"} {
		for _, suffix := range []string{"", "-save", "-restore"} {
			name := filepath.Join("/usr/sbin", family+suffix)
			if m.err != nil {
				return
			}
			if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
				m.err = err
				return
			}
			m.err = os.Symlink(backend, name)
		}
	}
}
