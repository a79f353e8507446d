package testbed

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"k8s.io/client-go/kubernetes"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
)

// apiPort is the API server's.
const apiPort = "6443"

// apiAddress is where places of the test bed reach the API server, apiURL its URL.
func (c *Cluster) apiAddress() string {
	return net.JoinHostPort(c.options.first(controlPlaneIP, controlPlaneIPv6), apiPort)
}

func (c *Cluster) apiURL() string { return "https://" + c.apiAddress() }

// Daemons of the control plane.
const (
	Etcd              = "etcd"
	APIServer         = "kube-apiserver"
	ControllerManager = "kube-controller-manager"
	Scheduler         = "kube-scheduler"
	relay             = "relay"
	bastionServer     = "bastion"
	bastionServer6    = "bastion6"
)

// StopAPIServer kills the API server.
func (c *Cluster) StopAPIServer(ctx context.Context) error { return c.stop(ctx, APIServer) }

// StartAPIServer starts the API server and waits until it is ready.
func (c *Cluster) StartAPIServer(ctx context.Context) error {
	if err := c.StartDaemon(ctx, APIServer); err != nil {
		return err
	}
	return c.awaitAPI(ctx)
}

// StopDaemon kills a daemon of the control plane.
func (c *Cluster) StopDaemon(ctx context.Context, name string) error { return c.stop(ctx, name) }

// StartDaemon starts a daemon of the control plane; its data is as it was.
func (c *Cluster) StartDaemon(ctx context.Context, name string) error {
	if _, runs := c.recorded(name); runs {
		return fmt.Errorf("start %s: it runs", name)
	}
	args, ok := c.controlPlaneArgs()[name]
	if !ok {
		return fmt.Errorf("start %s: no daemon of the control plane", name)
	}
	return c.start(ctx, ControlPlane, name, nil, append([]string{name}, args...)...)
}

// awaitAPI waits until the API server serves everything that is needed.
func (c *Cluster) awaitAPI(ctx context.Context) error {
	config, err := c.RESTConfig()
	if err != nil {
		return err
	}
	config.Timeout = testenv.Stretch(5 * time.Second)
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("await the API server: %w", err)
	}
	err = Poll(ctx, 90*time.Second, func() error {
		return client.RESTClient().Get().AbsPath("/readyz").Do(ctx).Error()
	})
	if err != nil {
		return fmt.Errorf("the API server does not become ready (see %s): %w", filepath.Join(c.dir, "logs", APIServer+".log"), err)
	}
	return nil
}

// startControlPlane starts everything that is neither on a node nor a client of
// the API server.
func (c *Cluster) startControlPlane(ctx context.Context, listener *os.File) error {
	err := c.start(ctx, ControlPlane, relay, []*os.File{listener}, "node", "relay", c.apiAddress())
	servers := c.options.families(bastionServer, bastionServer6)
	for i, address := range c.options.families(BastionIP, BastionIPv6) {
		err = errors.Join(err, c.start(ctx, Bastion, servers[i], nil, "traffic", "serve", "-name", Bastion, "-log", c.accessLogPath(),
			net.JoinHostPort(address, strconv.Itoa(BastionPort))))
	}
	return errors.Join(err, c.StartDaemon(ctx, Etcd), c.StartDaemon(ctx, APIServer))
}

func (c *Cluster) controlPlaneArgs() map[string][]string {
	pki := func(file string) string { return filepath.Join(c.pkiDir(), file) }
	loopback := c.options.first("127.0.0.1", "::1")
	client, peer := "http://"+net.JoinHostPort(loopback, "2379"), "http://"+net.JoinHostPort(loopback, "2380")
	return map[string][]string{
		Etcd: {
			"--name=cp", "--data-dir=" + filepath.Join(c.dir, "etcd"), "--unsafe-no-fsync",
			"--listen-client-urls=" + client, "--advertise-client-urls=" + client, "--listen-peer-urls=" + peer,
			"--initial-advertise-peer-urls=" + peer, "--initial-cluster=cp=" + peer, "--log-level=warn",
		},
		APIServer: {
			"--etcd-servers=" + client, "--advertise-address=" + c.options.first(controlPlaneIP, controlPlaneIPv6),
			"--bind-address=" + c.options.first("0.0.0.0", "::"), "--secure-port=" + apiPort,
			"--cert-dir=" + filepath.Join(c.dir, "apiserver"), "--tls-cert-file=" + pki("apiserver.crt"), "--tls-private-key-file=" + pki("apiserver.key"),
			"--client-ca-file=" + pki("ca.crt"), "--kubelet-certificate-authority=" + pki("ca.crt"),
			"--kubelet-client-certificate=" + pki("apiserver-kubelet-client.crt"), "--kubelet-client-key=" + pki("apiserver-kubelet-client.key"),
			"--kubelet-preferred-address-types=InternalIP", "--service-account-issuer=https://kubernetes.default.svc",
			"--service-account-key-file=" + pki("sa.pub"), "--service-account-signing-key-file=" + pki("sa.key"),
			"--service-cluster-ip-range=" + c.options.joined(ServiceCIDR, ServiceCIDRv6), "--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction",
			"--allow-privileged=true", "--endpoint-reconciler-type=lease", "--profiling=false",
		},
		ControllerManager: {
			"--kubeconfig=" + pki("kube-controller-manager.conf"), "--authentication-kubeconfig=" + pki("kube-controller-manager.conf"),
			"--authorization-kubeconfig=" + pki("kube-controller-manager.conf"), "--bind-address=" + loopback,
			"--root-ca-file=" + pki("ca.crt"), "--service-account-private-key-file=" + pki("sa.key"), "--use-service-account-credentials=true",
			// Each node gets its own from us; the controller manager's IPAM could choose another.
			"--leader-elect=false", "--cluster-cidr=" + c.options.joined(ClusterCIDR, ClusterCIDRv6), "--allocate-node-cidrs=false",
			"--node-monitor-grace-period=" + c.options.NodeMonitorGrace.String(), "--node-monitor-period=" + testenv.Stretch(2*time.Second).String(),
		},
		Scheduler: {
			"--kubeconfig=" + pki("kube-scheduler.conf"), "--authentication-kubeconfig=" + pki("kube-scheduler.conf"),
			"--authorization-kubeconfig=" + pki("kube-scheduler.conf"), "--bind-address=" + loopback, "--leader-elect=false",
		},
	}
}
