// Package apiserver starts real API servers for tests, each with an etcd of its
// own, on the loopback.
package apiserver

import (
	"os"
	"testing"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/egressip-operator/egressip-operator/internal/testenv/binaries"
)

// Start brings up etcd and an API server that end with the test, and installs
// the CRDs of the directories, which are relative to the test's package. The
// Config of what it returns is the administrator's. It fails the test where any
// of that fails.
//
// The programs are those of package binaries, which builds them where they are
// missing, or those in the directory that KUBEBUILDER_ASSETS names.
func Start(t *testing.T, crds ...string) *envtest.Environment {
	t.Helper()
	assets := os.Getenv("KUBEBUILDER_ASSETS")
	if assets == "" {
		dir, err := binaries.Dir(t.Context(), binaries.APIServer()...)
		if err != nil {
			t.Fatalf("build the API server: %v", err)
		}
		assets = dir
	}
	env := &envtest.Environment{
		BinaryAssetsDirectory: assets,
		CRDDirectoryPaths:     crds,
		ErrorIfCRDPathMissing: true,
		// The machine may be busy with other tests.
		ControlPlaneStartTimeout: 2 * time.Minute,
		ControlPlaneStopTimeout:  time.Minute,
	}
	// Before the start: one that fails late, as by a CRD, leaves both running.
	t.Cleanup(func() {
		if err := env.Stop(); err != nil {
			t.Errorf("stop the API server: %v", err)
		}
	})
	if _, err := env.Start(); err != nil {
		t.Fatalf("start the API server: %v", err)
	}
	return env
}
