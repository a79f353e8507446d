package cri

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr/funcr"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimev1 "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/utils/clock"
)

// runtime is a container runtime of which only the sandboxes are real.
type runtime struct {
	runtimev1.UnimplementedRuntimeServiceServer

	mu        sync.Mutex
	sandboxes map[string]*runtimev1.PodSandboxStatus
	// vanished are in the list, but gone when they are asked for.
	vanished map[string]bool
	// stuck makes lists wait for it to be closed, or for the caller to give up.
	stuck   chan struct{}
	answers int // lists that were given
	asked   map[string]int
}

func newRuntime(sandboxes ...*runtimev1.PodSandboxStatus) *runtime {
	r := &runtime{sandboxes: map[string]*runtimev1.PodSandboxStatus{}, vanished: map[string]bool{}, asked: map[string]int{}}
	for _, s := range sandboxes {
		r.sandboxes[s.Id] = s
	}
	return r
}

func (r *runtime) change(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f()
}

func (r *runtime) ListPodSandbox(ctx context.Context, _ *runtimev1.ListPodSandboxRequest) (*runtimev1.ListPodSandboxResponse, error) {
	r.mu.Lock()
	stuck := r.stuck
	r.mu.Unlock()
	if stuck != nil {
		select {
		case <-stuck:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answers++
	// The filter is not obeyed: an answer must be safe without.
	answer := &runtimev1.ListPodSandboxResponse{}
	for id, s := range r.sandboxes {
		answer.Items = append(answer.Items, &runtimev1.PodSandbox{Id: id, Metadata: s.Metadata, State: s.State})
	}
	return answer, nil
}

func (r *runtime) PodSandboxStatus(_ context.Context, q *runtimev1.PodSandboxStatusRequest) (*runtimev1.PodSandboxStatusResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked[q.PodSandboxId]++
	s, there := r.sandboxes[q.PodSandboxId]
	if !there || r.vanished[q.PodSandboxId] {
		return nil, status.Error(codes.NotFound, "no such sandbox")
	}
	return &runtimev1.PodSandboxStatusResponse{Status: s}, nil
}

// serve answers on a socket until the function that it returns is called, or
// the test ends.
func serve(t *testing.T, path string, r *runtime) (stop func()) {
	t.Helper()
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	runtimev1.RegisterRuntimeServiceServer(server, r)
	var done sync.WaitGroup
	done.Go(func() {
		if err := server.Serve(listener); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			t.Error(err)
		}
	})
	var once sync.Once
	stop = func() { once.Do(func() { server.Stop(); done.Wait() }) }
	t.Cleanup(stop)
	return stop
}

func sandbox(id, ip string, change ...func(*runtimev1.PodSandboxStatus)) *runtimev1.PodSandboxStatus {
	s := &runtimev1.PodSandboxStatus{
		Id:        id,
		Metadata:  &runtimev1.PodSandboxMetadata{Namespace: "shop", Name: id, Uid: "uid-" + id},
		State:     runtimev1.PodSandboxState_SANDBOX_READY,
		CreatedAt: 1000,
		Network:   &runtimev1.PodSandboxNetworkStatus{Ip: ip},
	}
	for _, f := range change {
		f(s)
	}
	return s
}

func notReady(s *runtimev1.PodSandboxStatus) { s.State = runtimev1.PodSandboxState_SANDBOX_NOTREADY }

// watched is a Source that runs, with a hand on its links.
type watched struct {
	*Source
	came   func() // a link came up
	failed chan string
}

// start runs a Source until the test ends.
func start(t *testing.T, socket string) *watched {
	t.Helper()
	listening, failed := make(chan func(), 1), make(chan string, 64)
	s := New(Config{
		Socket: socket, Clock: clock.RealClock{},
		Log: funcr.New(func(_, line string) {
			if strings.Contains(line, `"error"`) {
				failed <- line
			}
		}, funcr.Options{}),
		Links: func(ctx context.Context, came func()) error {
			listening <- came
			<-ctx.Done()
			return ctx.Err()
		},
	})
	ctx, cancel := context.WithCancel(t.Context())
	var done sync.WaitGroup
	done.Go(func() {
		if err := s.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { cancel(); done.Wait() })
	return &watched{Source: s, came: <-listening, failed: failed}
}

// tells waits until the source tells exactly these pods' names and addresses.
// The bound is below the slow pace: what needs that would fail.
func (w *watched) tells(t *testing.T, want ...string) {
	t.Helper()
	var got []string
	deadline := time.NewTimer(slowPoll / 2)
	defer deadline.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		got = nil
		for _, p := range w.Pods() {
			got = append(got, fmt.Sprintf("%s %v", p.Name, p.Addresses))
		}
		slices.Sort(got)
		if slices.Equal(got, want) {
			return
		}
		select {
		case <-deadline.C:
			t.Fatalf("the source tells %q, want %q", got, want)
		case <-tick.C:
		}
	}
}

// fails waits until the source has told that the runtime does not answer.
func (w *watched) fails(t *testing.T) {
	t.Helper()
	select {
	case <-w.failed:
	case <-time.After(slowPoll / 2):
		t.Fatal("a runtime that does not answer is not told of")
	}
}

// await waits for a condition of the runtime.
func (r *runtime) await(t *testing.T, what string, met func() bool) {
	t.Helper()
	deadline := time.NewTimer(slowPoll / 2)
	defer deadline.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		r.mu.Lock()
		ok := met()
		r.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-deadline.C:
			t.Fatal("not within the bound: " + what)
		case <-tick.C:
		}
	}
}

func socketOf(t *testing.T) string {
	t.Helper()
	return filepath.Join(t.TempDir(), "s")
}

// TestNewPodIsToldWhenItsLinkIsThere: a sandbox that comes up some time after
// its link is told at once, not at the slow pace; and so is its end.
func TestNewPodIsToldWhenItsLinkIsThere(t *testing.T) {
	t.Parallel()
	r := newRuntime(sandbox("old", "10.244.1.5"))
	path := socketOf(t)
	serve(t, path, r)
	w := start(t, path)
	w.tells(t, "old [10.244.1.5]")

	var before int
	r.change(func() { before = r.answers })
	w.came()
	r.await(t, "more than one list after a link", func() bool { return r.answers > before+2 })
	r.change(func() { r.sandboxes["new"] = sandbox("new", "10.244.1.6") })
	w.tells(t, "new [10.244.1.6]", "old [10.244.1.5]")

	r.change(func() { r.sandboxes["old"] = sandbox("old", "10.244.1.5", notReady) })
	w.tells(t, "new [10.244.1.6]")
	r.change(func() {
		if r.asked["new"] != 1 {
			t.Errorf("an address that is known was asked for %d times", r.asked["new"])
		}
	})
}

// TestNewPodIsFoundSoonAfterItIsReady: however long after its link a sandbox is READY, and
// however long the runtime takes to answer, its address is found soon after; and polls
// become rare when no link comes up.
// Mutants: polling is fast for three seconds only; the pause grows with the runtime's
// time to answer without a limit; polling never becomes slow.
func TestNewPodIsFoundSoonAfterItIsReady(t *testing.T) {
	t.Parallel()
	for _, took := range []time.Duration{time.Millisecond, 50 * time.Millisecond, time.Second} {
		for _, ready := range []time.Duration{0, 100 * time.Millisecond, time.Second, 4 * time.Second, 20 * time.Second, time.Minute} {
			at, polls := time.Duration(0), 0
			for ; at < ready; polls++ {
				at += took + pauseAfter(took, at+took)
			}
			// The poll during which it became READY may have missed it.
			if late, most := at+took-ready, 2*took+500*time.Millisecond+ready/20; late > most {
				t.Errorf("polls of %v: a sandbox READY after %v is found %v later, which must be within %v", took, ready, late, most)
			}
			if polls > 300 {
				t.Errorf("polls of %v: %d of them within %v, which must be 300 at most", took, polls, ready)
			}
		}
	}
	if rest := pauseAfter(time.Millisecond, time.Hour); rest != slowPoll {
		t.Errorf("an hour after the last link the pause is %v, want %v", rest, slowPoll)
	}
}

// TestPodsAreWhatHasAnAddress: pods in the node's network, others than READY,
// without an owner, with no address or one that is none, are not told; and one
// whose address comes later is.
func TestPodsAreWhatHasAnAddress(t *testing.T) {
	t.Parallel()
	r := newRuntime(
		sandbox("good", "10.244.1.5", func(s *runtimev1.PodSandboxStatus) {
			s.Network.AdditionalIps = []*runtimev1.PodIP{{Ip: "fd00::5"}, {Ip: "10.244.9.5"}, {Ip: "10.244.1.5"}}
		}),
		sandbox("host", "192.168.7.10", func(s *runtimev1.PodSandboxStatus) {
			s.Linux = &runtimev1.LinuxPodSandboxStatus{Namespaces: &runtimev1.Namespace{
				Options: &runtimev1.NamespaceOption{Network: runtimev1.NamespaceMode_NODE},
			}}
		}),
		sandbox("ended", "10.244.1.6", notReady),
		sandbox("nobody", "10.244.1.7", func(s *runtimev1.PodSandboxStatus) { s.Metadata = nil }),
		sandbox("garbage", "not an address"),
		sandbox("zero", "0.0.0.0"),
		sandbox("link", "fe80::5"),
		sandbox("six", "fd00::6"),
		sandbox("late", "", func(s *runtimev1.PodSandboxStatus) { s.Network = nil }),
		sandbox("vanished", "10.244.1.8"),
	)
	r.vanished["vanished"] = true
	path := socketOf(t)
	serve(t, path, r)
	w := start(t, path)
	w.tells(t, "good [10.244.1.5 fd00::5 10.244.9.5]", "six [fd00::6]")

	r.change(func() { r.sandboxes["late"] = sandbox("late", "10.244.1.9") })
	w.came()
	w.tells(t, "good [10.244.1.5 fd00::5 10.244.9.5]", "late [10.244.1.9]", "six [fd00::6]")
	r.change(func() {
		if r.asked["host"] != 1 {
			t.Errorf("a pod in the node's network was asked for %d times", r.asked["host"])
		}
	})
}

// TestRuntimeIsRestarted: what was known stays while the runtime is away, which is
// told, and its successor at the same path is found without a link that comes up.
// Mutant: what was known is forgotten when an answer fails.
func TestRuntimeIsRestarted(t *testing.T) {
	t.Parallel()
	path := socketOf(t)
	stop := serve(t, path, newRuntime(sandbox("a", "10.244.1.5")))
	w := start(t, path)
	w.tells(t, "a [10.244.1.5]")
	stop()
	w.came()
	w.fails(t)
	w.tells(t, "a [10.244.1.5]")

	next := newRuntime(sandbox("b", "10.244.1.5"))
	serve(t, path, next)
	w.tells(t, "b [10.244.1.5]")
}

// TestRuntimeComesLate: there is no socket at first.
func TestRuntimeComesLate(t *testing.T) {
	t.Parallel()
	path := socketOf(t)
	w := start(t, path)
	if pods := w.Pods(); pods != nil {
		t.Errorf("pods %v without a runtime", pods)
	}
	serve(t, path, newRuntime(sandbox("a", "10.244.1.5")))
	w.tells(t, "a [10.244.1.5]")
}

// TestRuntimeIsStuck: a list that is not answered ends, what was known stays, and
// it is asked again.
func TestRuntimeIsStuck(t *testing.T) {
	t.Parallel()
	r := newRuntime(sandbox("a", "10.244.1.5"))
	path := socketOf(t)
	serve(t, path, r)
	w := start(t, path)
	w.tells(t, "a [10.244.1.5]")
	stuck := make(chan struct{}) // never closed: only the deadline ends it
	r.change(func() { r.stuck = stuck })
	w.came()
	r.change(func() { r.sandboxes["b"] = sandbox("b", "10.244.1.6") })
	w.fails(t)
	w.tells(t, "a [10.244.1.5]")
	r.change(func() { r.stuck = nil })
	w.tells(t, "a [10.244.1.5]", "b [10.244.1.6]")
}

// TestSomethingElseListens: what is no runtime tells nothing and stops nothing.
func TestSomethingElseListens(t *testing.T) {
	t.Parallel()
	path := socketOf(t)
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	accepted := make(chan struct{}, 1)
	var done sync.WaitGroup
	done.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return // closed
			}
			_, _ = conn.Write([]byte("220 this is no container runtime\r\n"))
			conn.Close()
			select {
			case accepted <- struct{}{}:
			default:
			}
		}
	})
	w := start(t, path)
	<-accepted
	if pods := w.Pods(); pods != nil {
		t.Errorf("pods %v of something else", pods)
	}
	listener.Close()
	done.Wait()
	serve(t, path, newRuntime(sandbox("a", "10.244.1.5")))
	w.tells(t, "a [10.244.1.5]")
}

// TestSocketBelowRoot: the node's paths are found where its /run is mounted.
func TestSocketBelowRoot(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	s := New(Config{Socket: Auto, Root: root})
	if path, err := s.socket(); !errors.Is(err, errNoSocket) {
		t.Errorf("found %s, %v in an empty directory", path, err)
	}
	if err := os.Mkdir(filepath.Join(root, "crio"), 0o755); err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("unix", filepath.Join(root, "crio", "crio.sock"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	for socket, want := range map[string]string{
		Auto:                 filepath.Join(root, "crio", "crio.sock"),
		"/run/a.sock":        filepath.Join(root, "a.sock"),
		"/var/run/b/a.sock":  filepath.Join(root, "b", "a.sock"),
		"/somewhere/a.sock":  "/somewhere/a.sock",
		"/running/at/a.sock": "/running/at/a.sock",
	} {
		s := New(Config{Socket: socket, Root: root})
		if got, err := s.socket(); err != nil || got != want {
			t.Errorf("%s is seen at %s, %v; want %s", socket, got, err, want)
		}
	}
}

// TestPodsInOrder: what Pods returns is in order of creation.
func TestPodsInOrder(t *testing.T) {
	t.Parallel()
	s := New(Config{})
	ip := []netip.Addr{netip.MustParseAddr("10.244.1.5")}
	s.sandboxes.Store(&map[string]Pod{
		"x": {UID: "2", Addresses: ip, CreatedAt: time.Unix(2, 0)},
		"y": {UID: "3", Addresses: ip, CreatedAt: time.Unix(1, 0)},
		"z": {UID: "1", Addresses: ip, CreatedAt: time.Unix(2, 0)},
	})
	var uids []string
	for _, p := range s.Pods() {
		uids = append(uids, p.UID)
	}
	if !slices.Equal(uids, []string{"3", "1", "2"}) {
		t.Errorf("in order %v", uids)
	}
}
