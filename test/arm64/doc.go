// Package arm64 runs what can be run of the image for arm64 on a machine of another architecture,
// by user-mode emulation. The kernel is the machine's own, and the emulation has neither bpf(2) nor
// netlink of netfilter: what needs these is not tried.
package arm64
