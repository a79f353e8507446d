package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/egressip-operator/egressip-operator/internal/testenv/binaries"
	"github.com/egressip-operator/egressip-operator/test/kernels/internal/plan"
	"github.com/egressip-operator/egressip-operator/test/matrix"
	"github.com/egressip-operator/egressip-operator/test/testbed"
)

// prepareClusters builds what test beds run, which would take a guest very long: Kubernetes,
// and the test bed's own programs. It does nothing if no suite brings up a cluster.
func (b bench) prepareClusters(ctx context.Context, list []suite) error {
	if !slices.ContainsFunc(list, suite.isCluster) {
		return nil
	}
	if _, err := os.Stat(filepath.Join(b.repository, "build", "image.tar")); err != nil {
		return fmt.Errorf("%w: run \"make image\" first", err)
	}
	if _, err := binaries.Dir(ctx); err != nil {
		return err
	}
	args := append([]string{"build", "-o", b.testbedPrograms() + "/"}, testbed.Programs()...)
	_, err := output(ctx, b.repository, "go", args...)
	return err
}

func (b bench) testbedPrograms() string { return filepath.Join(b.work, "testbed") }

// inCluster adds to a run what a suite that brings up a cluster needs.
func (b bench) inCluster(s suite, r *plan.Run) {
	if !s.isCluster() {
		return
	}
	r.Env = append(r.Env, matrix.Variable+"="+s.cell, matrix.Nodes+"=2", testbed.ProgramsVariable+"="+plan.HostRoot+b.testbedPrograms())
	r.Keep = []string{filepath.Join(b.testbeds, "*.failed")}
}

func (s suite) isCluster() bool { return s.cell != "" }
