package controllers_test

import (
	"context"
	"io"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/test/tools"
)

// api is a real API server with the CRDs of config/crd, and its administrator.
type api struct {
	client.Client
	env *envtest.Environment
	cfg *rest.Config
}

// startAPI brings up etcd and an API server that end with the test.
func startAPI(t *testing.T) *api {
	t.Helper()
	binaries, err := tools.Dir(t.Context(), tools.APIServer()...)
	if err != nil {
		t.Fatalf("build the API server: %v", err)
	}
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, v1.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	env := &envtest.Environment{
		BinaryAssetsDirectory: binaries,
		CRDDirectoryPaths:     []string{"../config/crd"},
		ErrorIfCRDPathMissing: true,
		Scheme:                scheme,
		// The machine may be busy with other tests.
		ControlPlaneStartTimeout: 2 * time.Minute,
		ControlPlaneStopTimeout:  time.Minute,
	}
	env.ControlPlane.GetAPIServer().Err = io.Discard
	cfg, err := env.Start()
	t.Cleanup(func() {
		if err := env.Stop(); err != nil {
			t.Errorf("stop the API server: %v", err)
		}
	})
	if err != nil {
		t.Fatalf("start the API server: %v", err)
	}
	c, err := client.New(cfg, client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	return &api{Client: c, env: env, cfg: cfg}
}

// eventually asks until wrong returns "", and fails the test with its last
// answer otherwise.
func eventually(t *testing.T, wrong func(context.Context) string) {
	t.Helper()
	var last string
	err := wait.PollUntilContextTimeout(t.Context(), 20*time.Millisecond, 30*time.Second, true, func(ctx context.Context) (bool, error) {
		last = wrong(ctx)
		return last == "", nil
	})
	if err != nil {
		t.Fatalf("%v; last: %s", err, last)
	}
}
