package node

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
)

// Hierarchy is a mounted cgroup hierarchy.
type Hierarchy struct {
	// Mount is where it is mounted.
	Mount string
	// Options choose its controllers when it is mounted again; empty for
	// cgroup v2.
	Options string
	// V2 is true for the unified hierarchy, false for one of cgroup v1.
	V2 bool
}

// Hierarchies lists what the machine has mounted below /sys/fs/cgroup: one
// unified hierarchy, or those of cgroup v1. A unified hierarchy next to v1 ones
// has no controllers and is left out.
func Hierarchies() ([]Hierarchy, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("list cgroup hierarchies: %w", err)
	}
	defer f.Close()
	var v1, v2 []Hierarchy
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		// ID PARENT MAJ:MIN ROOT MOUNT OPTIONS [FIELDS...] - TYPE SOURCE SUPEROPTIONS
		left, right, _ := strings.Cut(lines.Text(), " - ")
		l, r := strings.Fields(left), strings.Fields(right)
		if len(l) < 5 || len(r) < 3 || !strings.HasPrefix(l[4], "/sys/fs/cgroup") {
			continue
		}
		switch r[0] {
		case "cgroup2":
			v2 = append(v2, Hierarchy{Mount: l[4], V2: true})
		case "cgroup":
			var options []string
			for o := range strings.SplitSeq(r[2], ",") {
				if !slices.Contains([]string{"rw", "ro", "clone_children", "xattr", "noprefix"}, o) && !strings.HasPrefix(o, "release_agent=") {
					options = append(options, o)
				}
			}
			v1 = append(v1, Hierarchy{Mount: l[4], Options: strings.Join(options, ",")})
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("list cgroup hierarchies: %w", err)
	}
	if len(v1) > 0 {
		return v1, nil
	}
	if len(v2) > 0 {
		return v2[:1], nil
	}
	return nil, errors.New("list cgroup hierarchies: none is mounted below /sys/fs/cgroup")
}

// joinCgroup puts this process into cgroups of the node's own, new and empty.
func joinCgroup(prefix, name string) error {
	hierarchies, err := Hierarchies()
	if err != nil {
		return err
	}
	for _, h := range hierarchies {
		parent := filepath.Join(h.Mount, cgroupName(prefix))
		dir := filepath.Join(parent, name)
		if err := RemoveCgroup(dir); err != nil {
			return err
		}
		for _, d := range []string{parent, dir} {
			if err := os.Mkdir(d, 0o755); err != nil && !errors.Is(err, unix.EEXIST) {
				return fmt.Errorf("make cgroup: %w", err)
			}
			if strings.Contains(h.Options, "cpuset") {
				// A new cpuset is empty, and takes no process before it is filled.
				for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
					all, err := os.ReadFile(filepath.Join(h.Mount, file))
					if err != nil {
						return fmt.Errorf("fill cpuset: %w", err)
					}
					if err := os.WriteFile(filepath.Join(d, file), all, 0o644); err != nil {
						return fmt.Errorf("fill cpuset: %w", err)
					}
				}
			}
		}
		if h.V2 {
			delegate(h.Mount)
			delegate(parent)
		}
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(os.Getpid())), 0o644); err != nil {
			return fmt.Errorf("join cgroup: %w", err)
		}
	}
	return nil
}

// cgroupName is the name of the cgroup that holds those of a test bed's nodes.
func cgroupName(prefix string) string { return "testbed-" + prefix }

// delegate lets children of a cgroup v2 use whatever controllers it has. Those
// that it does not have, or that the machine keeps to itself, the kubelet
// reports by itself.
func delegate(dir string) {
	have, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return
	}
	for c := range strings.FieldsSeq(string(have)) {
		_ = os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+c), 0o644)
	}
}

// RemoveCgroups removes the cgroups of a test bed's nodes, which must be off.
func RemoveCgroups(prefix string) error {
	hierarchies, err := Hierarchies()
	if err != nil {
		return err
	}
	var errs []error
	for _, h := range hierarchies {
		errs = append(errs, RemoveCgroup(filepath.Join(h.Mount, cgroupName(prefix))))
	}
	return errors.Join(errs...)
}

// RemoveCgroup removes a cgroup and those below it. Those of former containers
// would otherwise delay a node by seconds each. The kernel takes a moment to
// let go of processes that were killed.
func RemoveCgroup(dir string) error {
	var dirs []string
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil && entry.IsDir() {
			dirs = append(dirs, path)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("remove cgroup: %w", err)
	}
	slices.Reverse(dirs)
	deadline := time.Now().Add(testenv.Stretch(10 * time.Second))
	for _, d := range dirs {
		for {
			err := unix.Rmdir(d)
			if err == nil || errors.Is(err, unix.ENOENT) {
				break
			}
			if !errors.Is(err, unix.EBUSY) || time.Now().After(deadline) {
				return fmt.Errorf("remove cgroup %s: %w", d, err)
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
	return nil
}
