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

// What a socket may be called instead of its path.
const (
	// Auto is the first of Sockets that is there.
	Auto = "auto"
	// None is for no runtime.
	None = "none"
)

// The pace of the questions.
const (
	// quick is the pause between two of them after a link came up, and busy for
	// how long: a sandbox is READY some 100 ms after its link is there.
	quick = 20 * time.Millisecond
	busy  = 3 * time.Second
	// slow is the pause otherwise.
	slow = 10 * time.Second
	// again is the pause after a question that failed.
	again = time.Second
	// answerIn is how long an answer may take.
	answerIn = 2 * time.Second
	// share of the time is at most spent with questions: a runtime that needs
	// long for an answer is not asked without end.
	share = 4
	// most is the size of an answer in bytes that is still taken.
	most = 16 << 20
)

// Sockets returns where runtimes listen, in the order in which they are tried.
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
	// Addresses are its IPv4 addresses.
	Addresses []netip.Addr
	// CreatedAt is when its sandbox was made.
	CreatedAt time.Time
}

// Config of a Source.
type Config struct {
	// Socket is the path of the runtime's socket as the node knows it, or Auto.
	Socket string
	// Root is where the node's /run is seen, such as /host/run; /run if empty.
	Root string
	// Changed is called when Pods has another answer. It must not block.
	Changed func()
	Log     logr.Logger
	Clock   clock.Clock
	// Links calls each time that a link has come up, until ctx ends; nil for
	// the kernel's of this network namespace.
	Links func(ctx context.Context, came func()) error
}

// Source reads a runtime's pods.
type Source struct {
	config Config
	// sandboxes are the last whole answer; nil before the first.
	sandboxes atomic.Pointer[map[string]Pod]
	tried     chan struct{}
}

// New returns a Source that knows nothing yet.
func New(c Config) *Source {
	if c.Links == nil {
		c.Links = listen
	}
	return &Source{config: c, tried: make(chan struct{})}
}

// Tried is closed once Run has asked for the first time, with or without success.
// That takes two seconds at most.
func (s *Source) Tried() <-chan struct{} { return s.tried }

// Pods returns what the runtime told last, in order of creation; nothing before
// its first answer.
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

// Run asks until ctx ends. A runtime that cannot be reached is told of once, and
// tried again.
func (s *Source) Run(ctx context.Context) error {
	came := make(chan struct{}, 1)
	var g errgroup.Group
	g.Go(func() error {
		s.hear(ctx, came)
		return nil
	})
	g.Go(func() error {
		s.ask(ctx, came)
		return nil
	})
	return g.Wait()
}

// hear raises came for each link, until ctx ends.
func (s *Source) hear(ctx context.Context, came chan struct{}) {
	for ctx.Err() == nil {
		err := s.config.Links(ctx, func() {
			select {
			case came <- struct{}{}:
			default:
			}
		})
		if ctx.Err() != nil {
			return
		}
		s.config.Log.Error(err, "cannot hear of new links; a new pod's address is known up to so much later", "after", slow.String())
		s.pause(ctx, again)
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

// ask reads the list at the pace that links ask for.
func (s *Source) ask(ctx context.Context, came chan struct{}) {
	var until time.Time // the list is read quickly
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
		if conn == nil {
			conn, err = s.connect()
		}
		if err == nil {
			err = s.read(ctx, runtimev1.NewRuntimeServiceClient(conn))
		}
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
		if err != nil && conn != nil {
			// Its successor may listen at another path.
			conn.Close()
			conn = nil
		}
		took := s.config.Clock.Since(began)
		rest := slow
		switch {
		case failing:
			rest = again
		case began.Before(until):
			rest = max(quick, share*took)
		}
		t := s.config.Clock.NewTimer(rest)
		select {
		case <-ctx.Done():
		case <-came:
			until = s.config.Clock.Now().Add(busy)
			if failing {
				s.pause(ctx, quick)
			} else {
				s.pause(ctx, max(quick, share*took))
			}
		case <-t.C():
		}
		t.Stop()
	}
}

// connect prepares a connection to the runtime's socket.
func (s *Source) connect() (*grpc.ClientConn, error) {
	path, err := s.socket()
	if err != nil {
		return nil, err
	}
	conn, err := grpc.NewClient("unix://"+path,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(most)))
	if err != nil {
		return nil, fmt.Errorf("connect to the container runtime at %s: %w", path, err)
	}
	return conn, nil
}

// errNoSocket says that Auto finds nothing.
var errNoSocket = errors.New("no socket of a container runtime is where they usually are: give its path, or none")

// socket returns the path of the socket as this process sees it.
func (s *Source) socket() (string, error) {
	if s.config.Socket != Auto {
		return s.seen(s.config.Socket), nil
	}
	for _, path := range Sockets() {
		if info, err := os.Stat(s.seen(path)); err == nil && info.Mode()&os.ModeSocket != 0 {
			return s.seen(path), nil
		}
	}
	return "", errNoSocket
}

func (s *Source) seen(path string) string {
	for _, run := range []string{"/run", "/var/run"} {
		if rest, err := filepath.Rel(run, path); err == nil && filepath.IsLocal(rest) && s.config.Root != "" {
			return filepath.Join(s.config.Root, rest)
		}
	}
	return path
}

// read brings sandboxes up to date. A sandbox's address never changes, so that
// only new ones, and those without address, are asked for.
func (s *Source) read(ctx context.Context, runtime runtimev1.RuntimeServiceClient) error {
	ctx, cancel := context.WithTimeout(ctx, answerIn)
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
			// One that has just gone, most likely; it is asked again next time.
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
		return fmt.Errorf("ask for the runtime's pod sandboxes: %w", errors.Join(errs...))
	}
	return nil
}

// podOf returns the pod of a sandbox; without UID and addresses where it is in
// the node's network. It returns false for one that is not READY.
func podOf(status *runtimev1.PodSandboxStatus) (Pod, bool) {
	if status == nil || status.GetState() != runtimev1.PodSandboxState_SANDBOX_READY {
		return Pod{}, false
	}
	if status.GetLinux().GetNamespaces().GetOptions().GetNetwork() == runtimev1.NamespaceMode_NODE {
		return Pod{}, true
	}
	m := status.GetMetadata()
	if m.GetNamespace() == "" || m.GetUid() == "" {
		return Pod{}, true // whose it is cannot be told
	}
	pod := Pod{
		Namespace: m.GetNamespace(), Name: m.GetName(), UID: m.GetUid(),
		CreatedAt: time.Unix(0, status.GetCreatedAt()),
	}
	texts := []string{status.GetNetwork().GetIp()}
	for _, ip := range status.GetNetwork().GetAdditionalIps() {
		texts = append(texts, ip.GetIp())
	}
	for _, text := range texts {
		ip, err := netip.ParseAddr(text)
		if err == nil && ip.Unmap().Is4() && !ip.Unmap().IsUnspecified() && !slices.Contains(pod.Addresses, ip.Unmap()) {
			pod.Addresses = append(pod.Addresses, ip.Unmap())
		}
	}
	return pod, true
}
