package dataplane

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/bpf"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/feature"
)

// kernelSight is what was found out about the kernel, once: a kernel does not change while
// the agent lives.
type kernelSight struct {
	feature.Kernel
	missing []feature.Feature
}

// lookAtKernel tries what the kernel has of what we use. Until there are maps, programs
// and rules, that is not known.
func (r *round) lookAtKernel() error {
	d := r.d
	ready := d.maps != nil && d.programs != nil && r.rulesErr == nil
	if d.kernel != nil || !ready {
		return nil
	}
	k, err := d.tryKernel()
	if err == nil {
		d.kernel = &kernelSight{Kernel: k, missing: feature.Missing(k)}
	}
	return err
}

// tryKernel tries each feature that can be tried.
func (d *Dataplane) tryKernel() (k feature.Kernel, err error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return k, fmt.Errorf("ask for the kernel's version: %w", err)
	}
	k.Release = unix.ByteSliceToString(u.Release[:])
	for name, has := range map[feature.Name]bool{
		// Rules in iptables because that is configured say nothing about the kernel.
		feature.OwnTable:     d.choice.table || d.choice.configured,
		feature.MapBatches:   d.maps.Batches(),
		feature.ProgramClock: d.programs.Clock(),
		feature.TunnelSource: !d.keepsSource,
		feature.TCX:          bpf.HasTCX(),
		feature.TableOwner:   !d.choice.table || d.nft.Owned(),
	} {
		if !has {
			k.Lacks = append(k.Lacks, name)
		}
	}
	return k, nil
}
