package node

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
)

const (
	criSocket = "/run/containerd/containerd.sock"
	// containerdWait and apiWait bound the waits of a start: after apiWait the
	// kubelet starts without the API server, as on any node.
	containerdWait = 60 * time.Second
	apiWait        = 60 * time.Second
	// restartAfter is the pause before a daemon that ended is started again.
	restartAfter = time.Second
)

// Init is the node's first process: it makes the private mounts, loads the
// images, starts the daemons and keeps them running. It returns when the node
// cannot start, or on SIGTERM.
func Init(configPath string) error {
	c, err := ReadConfig(configPath)
	if err != nil {
		return err
	}
	if err := unix.Sethostname([]byte(c.Name)); err != nil {
		return fmt.Errorf("set host name: %w", err)
	}
	if err := layOut(c); err != nil {
		return err
	}
	if err := writeConfigs(c); err != nil {
		return err
	}
	if err := startRequired(); err != nil {
		return err
	}
	s := &supervisor{c: c, running: map[int]daemon{}}
	if err := s.start(daemon{"containerd", []string{"containerd", "-c", filepath.Join(c.Dir, "containerd.toml")}}); err != nil {
		return err
	}
	if err := loadImages(c); err != nil {
		return err
	}
	awaitAPI(c)
	network, err := networkDaemons(configPath, c)
	if err != nil {
		return err
	}
	for _, d := range append(network, []daemon{
		{"kubelet", []string{
			filepath.Join(c.Tools, "kubelet"), "--config=" + filepath.Join(c.Dir, "kubelet.yaml"),
			"--kubeconfig=" + filepath.Join(c.PKI, c.Name+".conf"), "--hostname-override=" + c.Name, "--node-ip=" + c.IPs,
			"--cert-dir=/var/lib/kubelet/pki", "--root-dir=/var/lib/kubelet", "--v=2",
		}},
		{"kube-proxy", []string{
			filepath.Join(c.Tools, "kube-proxy"), "--kubeconfig=" + filepath.Join(c.PKI, "kube-proxy.conf"),
			"--hostname-override=" + c.Name, "--proxy-mode=" + c.ProxyMode, "--cluster-cidr=" + c.ClusterCIDRs,
			// These would write settings of the whole machine.
			"--conntrack-max-per-core=0", "--conntrack-tcp-timeout-established=0", "--conntrack-tcp-timeout-close-wait=0",
		}},
	}...) {
		if err := s.start(d); err != nil {
			return err
		}
	}
	return s.run()
}

// unitDir holds units of systemd, as the node's administrator has them.
const unitDir = "/etc/systemd/system"

// startRequired runs the units that the kubelet requires, as systemd does before it
// starts the kubelet: if one fails, the node does not start.
func startRequired() error {
	units, err := filepath.Glob(filepath.Join(unitDir, "kubelet.service.requires", "*.service"))
	if err != nil {
		return fmt.Errorf("look for units that the kubelet requires: %w", err)
	}
	for _, unit := range units {
		text, err := os.ReadFile(unit)
		if err != nil {
			return fmt.Errorf("start %s: %w", filepath.Base(unit), err)
		}
		for line := range strings.Lines(string(text)) {
			command, ok := strings.CutPrefix(strings.TrimSpace(line), "ExecStart=")
			if !ok {
				continue
			}
			args := strings.Fields(command)
			out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
			log.Printf("%s: %s", filepath.Base(unit), out)
			if err != nil {
				return fmt.Errorf("start %s, which the kubelet requires: %w", filepath.Base(unit), err)
			}
		}
	}
	return nil
}

// loadImages waits for containerd and gives it the images.
func loadImages(c Config) error {
	ctx, cancel := context.WithTimeout(context.Background(), testenv.Stretch(containerdWait))
	defer cancel()
	for exec.CommandContext(ctx, "ctr", "version").Run() != nil {
		select {
		case <-ctx.Done():
			return errors.New("containerd does not answer: see containerd.log")
		case <-time.After(100 * time.Millisecond):
		}
	}
	for _, image := range c.Images {
		if out, err := exec.Command("ctr", "--namespace", "k8s.io", "images", "import", image).CombinedOutput(); err != nil {
			return fmt.Errorf("load image %s: %w: %s", image, err, out)
		}
	}
	return nil
}

// awaitAPI waits a while for the API server: a kubelet that starts too early
// tries again only after seconds.
func awaitAPI(c Config) {
	client := &http.Client{
		Timeout: testenv.Stretch(2 * time.Second),
		// Whether it answers is all that is asked of it.
		Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true},
	}
	for end := time.Now().Add(testenv.Stretch(apiWait)); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		response, err := client.Get(c.API + "/readyz")
		if err != nil {
			continue
		}
		response.Body.Close()
		if response.StatusCode == http.StatusOK {
			return
		}
	}
}

// daemon is a program that the node keeps running.
type daemon struct {
	name string
	args []string
}

// supervisor starts daemons and, as first process of a PID namespace, buries
// every orphan.
type supervisor struct {
	c       Config
	running map[int]daemon
}

func (s *supervisor) start(d daemon) error {
	file, err := os.OpenFile(filepath.Join(s.c.Dir, d.name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("start %s: %w", d.name, err)
	}
	defer file.Close()
	cmd := exec.Command(d.args[0], d.args[1:]...)
	cmd.Stdout, cmd.Stderr = file, file
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", d.name, err)
	}
	s.running[cmd.Process.Pid] = d
	return nil
}

// run waits for processes to end, and starts daemons again, as an init system
// does. cmd.Wait is not used: it would race with the wait for orphans.
func (s *supervisor) run() error {
	term := make(chan os.Signal, 1)
	signal.Notify(term, unix.SIGTERM)
	child := make(chan os.Signal, 1)
	signal.Notify(child, unix.SIGCHLD)
	for {
		for {
			var status unix.WaitStatus
			pid, err := unix.Wait4(-1, &status, unix.WNOHANG, nil)
			if errors.Is(err, unix.EINTR) {
				continue
			}
			if err != nil || pid <= 0 {
				break
			}
			d, ours := s.running[pid]
			if !ours {
				continue
			}
			delete(s.running, pid)
			log.Printf("%s ended (exit %d, signal %d)", d.name, status.ExitStatus(), status.Signal())
			time.Sleep(restartAfter)
			if err := s.start(d); err != nil {
				return err
			}
		}
		select {
		case <-term:
			return nil
		case <-child:
		}
	}
}

// writeConfigs writes the configuration of CNI, containerd and the kubelet.
func writeConfigs(c Config) error {
	files := map[string]string{
		filepath.Join(c.Dir, "containerd.toml"): fmt.Sprintf(containerdConfig, criSocket, c.Sandbox, c.CNI, snapshotter(c)),
		filepath.Join(c.Dir, "kubelet.yaml"): fmt.Sprintf(kubeletConfig, anyAddress(c), filepath.Join(c.PKI, "ca.crt"), criSocket, c.PodCIDRs[0], filepath.Join(c.PKI, c.Name+".crt"), filepath.Join(c.PKI, c.Name+".key"),
			testenv.Stretch(4*time.Second), int(testenv.Stretch(10*time.Second).Seconds())),
	}
	if text := networkConfig(c); text != "" {
		files[networkFile] = text
	}
	var errs []error
	for path, content := range files {
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			errs = append(errs, fmt.Errorf("configure node: %w", err))
		}
	}
	return errors.Join(errs...)
}

// anyAddress stands for all addresses of the node.
func anyAddress(c Config) string {
	if c.ipv6Only() {
		return "::"
	}
	return "0.0.0.0"
}

// snapshotter is overlayfs where the file system of the state supports it.
func snapshotter(c Config) string {
	base := filepath.Join(c.Dir, "try-overlay")
	defer os.RemoveAll(base)
	var dirs []string
	for _, d := range []string{"lower", "upper", "work", "merged"} {
		path := filepath.Join(base, d)
		if os.MkdirAll(path, 0o755) != nil {
			return "native"
		}
		dirs = append(dirs, path)
	}
	if unix.Mount("overlay", dirs[3], "overlay", 0, "lowerdir="+dirs[0]+",upperdir="+dirs[1]+",workdir="+dirs[2]) != nil {
		return "native"
	}
	if unix.Unmount(dirs[3], 0) != nil {
		return "native"
	}
	return "overlayfs"
}

const containerdConfig = `version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
[grpc]
  address = %q
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = %q
  restrict_oom_score_adj = true # machines may withhold CAP_SYS_RESOURCE
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = %q
    conf_dir = "/etc/cni/net.d"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = %q
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
`

const kubeletConfig = `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: %q
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: %q}}
authorization: {mode: Webhook}
cgroupDriver: cgroupfs
failCgroupV1: false
failSwapOn: false
clusterDomain: cluster.local
containerRuntimeEndpoint: unix://%s
podCIDR: %q
tlsCertFile: %q
tlsPrivateKeyFile: %q
resolvConf: ""
maxPods: 100
registerNode: true
imageGCHighThresholdPercent: 100
evictionHard: {memory.available: "50Mi"}
# Tests kill the same program again and again.
crashLoopBackOff: {maxContainerRestartPeriod: 5s}
nodeStatusUpdateFrequency: %s
nodeLeaseDurationSeconds: %d
syncFrequency: 10s
healthzBindAddress: 127.0.0.1
shutdownGracePeriod: 0s
`
