package controllers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/uuid"
	coordinationv1client "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
)

// The Lease. A leader that dies is replaced within leaseDuration, and sooner if probes
// find that its node died with it (leaderMonitor). One that cannot renew the Lease for
// renewDeadline stops before that. Every controller asks for the Lease once a
// retryPeriod, so that a lead that was released or taken is noticed that soon.
const (
	leaseDuration = 6 * time.Second
	renewDeadline = 4 * time.Second
	retryPeriod   = 250 * time.Millisecond
)

// leaseTimeout limits each request for the Lease, so that one that hangs does not cost
// the lead.
const leaseTimeout = renewDeadline / 2

// errLeadTaken ends the term of a leader that does not hold the Lease any more.
var errLeadTaken = errors.New("the lead was taken")

// leaseLock is the Lease as the elector of client-go sees it. It differs from client-go's
// own lock in two ways:
//
//   - A leader whose host is dead appears to have released the Lease. The elector then
//     takes it in one update, which fails if that leader has renewed the Lease in the
//     meantime. No other controller can take it in between, not even the former leader.
//   - A leader that does not find itself in the Lease any more ends its term at once.
//     The elector alone would try again until renewDeadline, or take the Lease again
//     if it is released meanwhile.
//
// The elector calls it from one goroutine at a time.
type leaseLock struct {
	resourcelock.Interface
	// dead reports whether the host of the leader with that identity is dead.
	dead func(ctx context.Context, identity string) bool
	// lost is called once, when a term as leader has ended.
	lost func(error)

	// held: this controller has led. A lead that was lost does not come back to the
	// same process.
	held, gone atomic.Bool
	// holder is who holds the Lease, by the last answer.
	holder string
}

// Get returns the Lease's record, which may be presented as released.
func (l *leaseLock) Get(ctx context.Context) (*resourcelock.LeaderElectionRecord, []byte, error) {
	record, raw, err := l.Interface.Get(ctx)
	if err != nil {
		return nil, nil, err
	}
	l.holder = record.HolderIdentity
	if l.holder == l.Identity() {
		return record, raw, nil
	}
	if l.held.Load() {
		l.lose()
		return record, raw, nil
	}
	if l.holder == "" || !l.dead(ctx, l.holder) {
		return record, raw, nil
	}
	released := *record
	released.HolderIdentity = ""
	if raw, err = json.Marshal(released); err != nil {
		return nil, nil, fmt.Errorf("write the record of a dead leader: %w", err)
	}
	return &released, raw, nil
}

// Create creates the Lease for this controller.
func (l *leaseLock) Create(ctx context.Context, record resourcelock.LeaderElectionRecord) error {
	if l.gone.Load() {
		return errLeadTaken
	}
	if err := l.Interface.Create(ctx, record); err != nil {
		return err
	}
	l.stored(record)
	return nil
}

// Update takes, renews or releases the Lease. The elector reads the Lease before it
// releases it, and would also release one that someone else has taken; that is refused.
func (l *leaseLock) Update(ctx context.Context, record resourcelock.LeaderElectionRecord) error {
	if l.gone.Load() {
		return errLeadTaken
	}
	if err := l.Interface.Update(ctx, record); err != nil {
		return err
	}
	l.stored(record)
	return nil
}

func (l *leaseLock) stored(record resourcelock.LeaderElectionRecord) {
	l.holder = record.HolderIdentity
	if l.holder == l.Identity() {
		l.held.Store(true)
	}
}

func (l *leaseLock) lose() {
	if l.gone.CompareAndSwap(false, true) {
		holder := l.holder
		if holder == "" {
			holder = "nobody"
		}
		l.lost(fmt.Errorf("%w: %s holds Lease %s", errLeadTaken, holder, l.Describe()))
	}
}

// newLeaseLock returns the lock. Its fields dead and lost must be set before use.
func newLeaseLock(cfg *rest.Config, namespace, identity string) (*leaseLock, error) {
	cfg = rest.AddUserAgent(rest.CopyConfig(cfg), "leader-election")
	cfg.Timeout = leaseTimeout
	cfg.QPS = -1
	leases, err := coordinationv1client.NewForConfig(cfg)
	if err != nil {
		return nil, fmt.Errorf("set up the client for the Lease: %w", err)
	}
	return &leaseLock{Interface: &resourcelock.LeaseLock{
		LeaseMeta:  metav1.ObjectMeta{Namespace: namespace, Name: FieldManager},
		Client:     leases,
		LockConfig: resourcelock.ResourceLockConfig{Identity: identity},
	}}, nil
}

// leaderIdentity is the name of this controller in the Lease: its Node, and the UID of
// its pod. A container that is restarted finds its own Lease and goes on with it.
// Without these options, it is the name of the machine and a random part.
func leaderIdentity(o Options) (string, error) {
	node, unique := o.NodeName, o.PodUID
	if node == "" {
		name, err := os.Hostname()
		if err != nil {
			return "", fmt.Errorf("find a name for the Lease: %w", err)
		}
		node = name
	}
	if unique == "" {
		unique = string(uuid.NewUUID())
	}
	return node + "_" + unique, nil
}

// namespaceFile is where a pod reads the name of its namespace.
const namespaceFile = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"

// ownNamespace is the namespace of the Lease if the options name none.
func ownNamespace(o Options) (string, error) {
	if o.LeaderElectionNamespace != "" {
		return o.LeaderElectionNamespace, nil
	}
	text, err := os.ReadFile(namespaceFile)
	if err != nil {
		return "", fmt.Errorf("find the namespace of the Lease: %w", err)
	}
	namespace := strings.TrimSpace(string(text))
	if namespace == "" {
		return "", errors.New("find the namespace of the Lease: " + namespaceFile + " is empty")
	}
	return namespace, nil
}

// term is the time for which this controller may lead. It ends once, for one reason,
// and the manager with it.
type term struct {
	once   sync.Once
	ended  chan struct{}
	reason error
}

func newTerm() *term { return &term{ended: make(chan struct{})} }

// end ends the term. Only the first reason counts.
func (t *term) end(reason error) {
	t.once.Do(func() {
		t.reason = reason
		close(t.ended)
	})
}

// NeedLeaderElection is false: a term ends whether or not everything has started.
func (*term) NeedLeaderElection() bool { return false }

// Start waits until ctx ends, which is no error, or the term.
func (t *term) Start(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-t.ended:
		return t.reason
	}
}
