package cri

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	runtimev1 "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/utils/clock"
)

// Names that stand for a socket's path.
const (
	// Auto is the first of Sockets that exists.
	Auto = "auto"
	// None is for no runtime.
	None = "none"
)

// The pace of polling.
const (
	// fastPoll is the shortest pause between two polls, slowPoll the longest.
	fastPoll = 20 * time.Millisecond
	slowPoll = 10 * time.Second
	// agedPoll is the share of the time since the last link came up that the pause
	// is. A sandbox is READY some 100 ms after its link exists, on a busy node
	// seconds: whenever it is, its address is found with little delay.
	agedPoll = 1.0 / 30
	// retryAfter is the pause after a failed poll.
	retryAfter = time.Second
	// pollTimeout bounds one poll.
	pollTimeout = 2 * time.Second
	// maxDutyCycle caps polling at this share of the time, by pauses of maxDutyPause
	// at most: a slow runtime is not polled all the time, and a new pod on a busy
	// node does not wait long for the next poll. The kubelet asks once a second.
	maxDutyCycle = 1.0 / 5
	maxDutyPause = 500 * time.Millisecond
	// maxReply is the size in bytes of the largest reply that is accepted.
	maxReply = 16 << 20
)

// Sockets returns the paths where runtimes listen, in the order in which they are
// tried.
func Sockets() []string {
	return []string{
		"/run/containerd/containerd.sock",
		"/run/crio/crio.sock",
		"/run/k3s/containerd/containerd.sock",
		"/run/cri-dockerd.sock",
	}
}

// Pod is a pod whose sandbox is READY, with addresses of its own.
type Pod struct {
	Namespace, Name, UID string
	// Labels are the pod's labels when its sandbox was made, and some of the kubelet's.
	Labels map[string]string
	// Addresses are its addresses, of both families.
	Addresses []netip.Addr
	// CreatedAt is when its sandbox was created.
	CreatedAt time.Time
}

// Config of a Source.
type Config struct {
	// Socket is the path of the runtime's socket on the node, or Auto.
	Socket string
	// Root is where the node's /run is mounted, such as /host/run; /run if empty.
	Root string
	// Changed is called when the result of Pods has changed. It must not block.
	Changed func()
	Log     logr.Logger
	Clock   clock.Clock
	// Links calls linkUp each time that a link has come up, until ctx ends; nil
	// for the kernel's links of this network namespace.
	Links func(ctx context.Context, linkUp func()) error
}

// Source reads a runtime's pods.
type Source struct {
	config Config
	// sandboxes are the last complete reply; nil before the first.
	sandboxes atomic.Pointer[map[string]Pod]
	tried     chan struct{}
}

// New returns a Source that knows nothing yet.
func New(c Config) *Source {
	if c.Links == nil {
		c.Links = watchLinks
	}
	return &Source{config: c, tried: make(chan struct{})}
}

// Tried is closed after the first poll of Run, whether it succeeded or not. That
// takes two seconds at most.
func (s *Source) Tried() <-chan struct{} { return s.tried }

// Pods returns the pods of the runtime's last reply, in order of creation; nothing
// before its first reply.
func (s *Source) Pods() []Pod {
	sandboxes := s.sandboxes.Load()
	if sandboxes == nil {
		return nil
	}
	pods := make([]Pod, 0, len(*sandboxes))
	for _, p := range *sandboxes {
		if len(p.Addresses) > 0 {
			pods = append(pods, p)
		}
	}
	slices.SortFunc(pods, func(a, b Pod) int {
		return cmp.Or(a.CreatedAt.Compare(b.CreatedAt), cmp.Compare(a.UID, b.UID))
	})
	return pods
}

// Run polls until ctx ends. A runtime that cannot be reached is logged once, and
// tried again.
func (s *Source) Run(ctx context.Context) error {
	linkUp := make(chan struct{}, 1)
	var g errgroup.Group
	g.Go(func() error {
		s.listen(ctx, linkUp)
		return nil
	})
	g.Go(func() error {
		s.poll(ctx, linkUp)
		return nil
	})
	return g.Wait()
}

// listen signals each link that comes up, until ctx ends.
func (s *Source) listen(ctx context.Context, linkUp chan struct{}) {
	for ctx.Err() == nil {
		err := s.config.Links(ctx, func() {
			select {
			case linkUp <- struct{}{}:
			default:
			}
		})
		if ctx.Err() != nil {
			return
		}
		s.config.Log.Error(err, "cannot watch for new links; the address of a new pod may be found later by up to one slow poll", "slowPoll", slowPoll.String())
		s.pause(ctx, retryAfter)
	}
}

func (s *Source) pause(ctx context.Context, d time.Duration) {
	t := s.config.Clock.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C():
	}
}

// poll reads the list of sandboxes at the pace that new links ask for.
func (s *Source) poll(ctx context.Context, linkUp chan struct{}) {
	var linkAt time.Time // when the last link came up
	var conn *grpc.ClientConn
	defer func() {
		if conn != nil {
			conn.Close()
		}
	}()
	failing, reached := false, false
	first := sync.OnceFunc(func() { close(s.tried) })
	defer first()
	for ctx.Err() == nil {
		began := s.config.Clock.Now()
		var err error
		conn, err = s.once(ctx, conn)
		if ctx.Err() != nil {
			return
		}
		switch {
		case err != nil && !failing:
			s.config.Log.Error(err, "the container runtime does not answer; a new pod's address is known only once the API server has it",
				"socket", s.config.Socket)
		case err == nil && !reached:
			s.config.Log.Info("the container runtime answers", "socket", conn.Target(), "pods", len(s.Pods()))
		}
		failing, reached = err != nil, err == nil
		first()
		took := s.config.Clock.Since(began)
		rest := pauseAfter(took, s.config.Clock.Since(linkAt))
		if failing {
			rest, took = retryAfter, 0
		}
		t := s.config.Clock.NewTimer(rest)
		select {
		case <-ctx.Done():
		case <-linkUp:
			linkAt = s.config.Clock.Now()
			s.pause(ctx, pauseAfter(took, 0))
		case <-t.C():
		}
		t.Stop()
	}
}

// pauseAfter is the pause after a poll that took so long, at a time since the last link
// came up.
func pauseAfter(took, sinceLink time.Duration) time.Duration {
	duty := min(time.Duration(float64(took)*(1/maxDutyCycle-1)), maxDutyPause)
	aged := min(time.Duration(float64(sinceLink)*agedPoll), slowPoll)
	return max(fastPoll, duty, aged)
}

// once polls once, on a new connection if there is none. It returns the connection
// for the next poll; nil after an error, as the runtime may then listen at another
// path.
func (s *Source) once(ctx context.Context, conn *grpc.ClientConn) (*grpc.ClientConn, error) {
	if conn == nil {
		var err error
		if conn, err = s.connect(); err != nil {
			return nil, err
		}
	}
	if err := s.read(ctx, runtimev1.NewRuntimeServiceClient(conn)); err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// connect prepares a connection to the runtime's socket.
func (s *Source) connect() (*grpc.ClientConn, error) {
	path, err := s.socket()
	if err != nil {
		return nil, err
	}
	conn, err := grpc.NewClient("unix://"+path,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxReply)))
	if err != nil {
		return nil, fmt.Errorf("connect to the container runtime at %s: %w", path, err)
	}
	return conn, nil
}

// errNoSocket says that Auto finds nothing.
var errNoSocket = errors.New("there is no socket of a container runtime at any of the usual paths: give its path, or none")

// socket returns the path of the socket in this process's file system.
func (s *Source) socket() (string, error) {
	if s.config.Socket != Auto {
		return s.mounted(s.config.Socket), nil
	}
	for _, path := range Sockets() {
		if info, err := os.Stat(s.mounted(path)); err == nil && info.Mode()&os.ModeSocket != 0 {
			return s.mounted(path), nil
		}
	}
	return "", errNoSocket
}

// mounted returns where this process finds the given path of the node.
func (s *Source) mounted(path string) string {
	for _, run := range []string{"/run", "/var/run"} {
		if rest, err := filepath.Rel(run, path); err == nil && filepath.IsLocal(rest) && s.config.Root != "" {
			return filepath.Join(s.config.Root, rest)
		}
	}
	return path
}

// read brings sandboxes up to date. A sandbox's address never changes, so only the
// status of new sandboxes, and of those without an address, is requested.
func (s *Source) read(ctx context.Context, runtime runtimev1.RuntimeServiceClient) error {
	ctx, cancel := context.WithTimeout(ctx, pollTimeout)
	defer cancel()
	list, err := runtime.ListPodSandbox(ctx, &runtimev1.ListPodSandboxRequest{Filter: &runtimev1.PodSandboxFilter{
		State: &runtimev1.PodSandboxStateValue{State: runtimev1.PodSandboxState_SANDBOX_READY},
	}})
	if err != nil {
		return fmt.Errorf("list the runtime's pod sandboxes: %w", err)
	}
	former := map[string]Pod{}
	if last := s.sandboxes.Load(); last != nil {
		former = *last
	}
	sandboxes := make(map[string]Pod, len(list.GetItems()))
	var errs []error
	for _, item := range list.GetItems() {
		id := item.GetId()
		if item.GetState() != runtimev1.PodSandboxState_SANDBOX_READY || id == "" {
			continue
		}
		if pod, known := former[id]; known && (len(pod.Addresses) > 0 || pod.UID == "") {
			sandboxes[id] = pod
			continue
		}
		answer, err := runtime.PodSandboxStatus(ctx, &runtimev1.PodSandboxStatusRequest{PodSandboxId: id})
		if err != nil {
			// It has most likely just gone; the next poll tries again.
			errs = append(errs, err)
			continue
		}
		if pod, ready := podOf(answer.GetStatus()); ready {
			sandboxes[id] = pod
		}
	}
	changed := s.sandboxes.Load() == nil || !reflect.DeepEqual(former, sandboxes)
	s.sandboxes.Store(&sandboxes)
	if changed && s.config.Changed != nil {
		s.config.Changed()
	}
	if len(errs) > 0 && ctx.Err() != nil {
		return fmt.Errorf("read the status of the runtime's pod sandboxes: %w", errors.Join(errs...))
	}
	return nil
}

// podOf returns the pod of a sandbox, without UID and addresses if it uses the
// node's network. It returns false for a sandbox that is not READY.
func podOf(status *runtimev1.PodSandboxStatus) (Pod, bool) {
	if status == nil || status.GetState() != runtimev1.PodSandboxState_SANDBOX_READY {
		return Pod{}, false
	}
	if status.GetLinux().GetNamespaces().GetOptions().GetNetwork() == runtimev1.NamespaceMode_NODE {
		return Pod{}, true
	}
	m := status.GetMetadata()
	if m.GetNamespace() == "" || m.GetUid() == "" {
		return Pod{}, true // its pod is unknown
	}
	pod := Pod{
		Namespace: m.GetNamespace(), Name: m.GetName(), UID: m.GetUid(),
		CreatedAt: time.Unix(0, status.GetCreatedAt()), Labels: status.GetLabels(),
	}
	texts := []string{status.GetNetwork().GetIp()}
	for _, ip := range status.GetNetwork().GetAdditionalIps() {
		texts = append(texts, ip.GetIp())
	}
	for _, text := range texts {
		if ip, ok := PodAddress(text); ok && !slices.Contains(pod.Addresses, ip) {
			pod.Addresses = append(pod.Addresses, ip)
		}
	}
	return pod, true
}

// PodAddress reads an address of a pod. It returns false for what is none with which a
// pod could send beyond its link.
func PodAddress(text string) (netip.Addr, bool) {
	ip, err := netip.ParseAddr(text)
	ip = ip.Unmap()
	return ip, err == nil && ip.Zone() == "" && !ip.IsUnspecified() && !ip.IsLoopback() && !ip.IsLinkLocalUnicast() && !ip.IsMulticast()
}
