// Package plan is what a virtual machine of test/kernels is told to do: the file that
// the program on the host writes into the initramfs, and the first process of the guest
// reads.
package plan

import "time"

// File is the plan's name in the initramfs, ModuleDir the folder of the modules that are
// loaded from there, and OutTag the tag of the file system that takes the output.
const (
	File      = "plan.json"
	ModuleDir = "modules"
	RootTag   = "root"
	OutTag    = "out"
)

// HostRoot is where a guest has the host's whole tree, read-only: paths of a Plan are
// below it.
const HostRoot = "/host"

// Plan is what a guest does.
type Plan struct {
	// Modules are files in ModuleDir of the initramfs, in the order of loading.
	Modules []string
	// Tree is the host's folder with lib/modules of the kernel, Kmod that of an unpacked
	// kmod, which loads modules in the guest.
	Tree, Kmod string
	// Refuse are modules that cannot be loaded, as on a kernel without them.
	Refuse []string
	// Scratch are folders that get a file system in memory of their own: overlays cannot lie on the
	// guest's root, which is one.
	Scratch []string
	Runs    []Run
}

// Run is one program to run. Its output goes to the file Name.log of the output.
type Run struct {
	Name string
	// Program and Dir are paths of the host.
	Program, Dir string
	Args, Env    []string
	Limit        time.Duration
	// Keep are patterns of folders that are copied to the output once the program has ended.
	Keep []string
}

// Log is the name of the file with a run's output, Status that of the file with its
// exit status, which is written last.
func (r Run) Log() string { return r.Name + ".log" }

// Status is the name of the file with the run's end: "0", or why it is not.
func (r Run) Status() string { return r.Name + ".status" }
