// Package apiserver starts real API servers for tests, each with an etcd of its
// own, on the loopback.
//
// Concurrency: each call starts another one, so tests that run in parallel share
// nothing.
package apiserver

import (
	"io"
	"os"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/egressip-operator/egressip-operator/internal/testenv/binaries"
)

// Options say what an API server is like. The zero value is one without any
// CRDs.
type Options struct {
	// CRDs are directories of CRDs to install, relative to the test's package.
	CRDs []string
	// Scheme has the kinds that the CRDs define; nil is that of client-go.
	Scheme *runtime.Scheme
	// DisableAdmission names an admission plugin to do without.
	DisableAdmission string
}

// Start brings up etcd and an API server that end with the test. The Config of
// what it returns is the administrator's. It fails the test if any of that fails.
//
// The programs are those of package binaries, which builds them where they are
// missing, or those in the directory that KUBEBUILDER_ASSETS names.
func Start(t *testing.T, o Options) *envtest.Environment {
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
		CRDDirectoryPaths:     o.CRDs,
		ErrorIfCRDPathMissing: true,
		Scheme:                o.Scheme,
		// The machine may be busy with other tests.
		ControlPlaneStartTimeout: 2 * time.Minute,
		ControlPlaneStopTimeout:  time.Minute,
	}
	server := env.ControlPlane.GetAPIServer()
	server.Err = io.Discard // a stopping server complains of its clients
	if o.DisableAdmission != "" {
		server.Configure().Append("disable-admission-plugins", o.DisableAdmission)
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
