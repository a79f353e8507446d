package apiconn

import (
	"context"
	"errors"
	"net/http"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	toolswatch "k8s.io/client-go/tools/watch"
	"k8s.io/klog/v2"
)

// NewInformer is like cache.NewSharedIndexInformer, but its informer is up to date again
// soon after the API server is back. client-go's own pause between two attempts grows up
// to a minute, and is not reset for two minutes: after the API server was away for
// minutes, or away twice, a node would use stale objects for that long. Here the pause
// stays below twice retryMost, and a watch that ended is resumed where it stopped.
func NewInformer(lw cache.ListerWatcher, example runtime.Object, resync time.Duration, indexers cache.Indexers) cache.SharedIndexInformer {
	return cache.NewSharedIndexInformer(patient{cache.ToListerWatcherWithContext(lw)}, example, resync, indexers)
}

// The pause between two attempts to reach an API server that is away. It doubles from
// retryFirst to retryMost, plus up to as much again at random, because thousands of nodes
// wait for one API server.
const (
	retryFirst = 250 * time.Millisecond
	retryMost  = 2 * time.Second
)

// logEvery is the number of failures after which the absence of the API server is logged
// again: every one or two minutes.
const logEvery = 30

// patient is a ListerWatcher that does not give up while the API server is away.
type patient struct {
	inner cache.ListerWatcherWithContext
}

// IsWatchListSemanticsUnSupported makes the informer start with a list: a watch that
// starts without one cannot be resumed.
func (patient) IsWatchListSemanticsUnSupported() bool { return true }

func (p patient) List(o metav1.ListOptions) (runtime.Object, error) {
	return p.ListWithContext(context.Background(), o)
}

func (p patient) Watch(o metav1.ListOptions) (watch.Interface, error) {
	return p.WatchWithContext(context.Background(), o)
}

// ListWithContext retries until the API server answers.
func (p patient) ListWithContext(ctx context.Context, o metav1.ListOptions) (list runtime.Object, err error) {
	err = untilReached(ctx, func() error {
		list, err = p.inner.ListWithContext(ctx, o)
		return err
	})
	return list, err
}

// WatchWithContext watches from the resource version in o, and resumes a watch that
// ended.
func (p patient) WatchWithContext(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
	if o.ResourceVersion == "" || o.ResourceVersion == "0" {
		return p.inner.WatchWithContext(ctx, o)
	}
	return toolswatch.NewRetryWatcherWithContext(ctx, o.ResourceVersion, resumed{p.inner, o})
}

// resumed starts watches that differ from the first one only in their resource version.
type resumed struct {
	inner cache.ListerWatcherWithContext
	first metav1.ListOptions
}

func (r resumed) WatchWithContext(ctx context.Context, at metav1.ListOptions) (w watch.Interface, err error) {
	o := r.first
	o.ResourceVersion, o.AllowWatchBookmarks = at.ResourceVersion, at.AllowWatchBookmarks
	err = untilReached(ctx, func() error {
		w, err = r.inner.WatchWithContext(ctx, o)
		return err
	})
	var refused apierrors.APIStatus
	if errors.As(err, &refused) {
		// For example, the version is too old, or too new after a restore from a backup.
		// Asking again would not help: make the informer start over with a list.
		status := refused.Status()
		status.Code, status.Reason = http.StatusGone, metav1.StatusReasonExpired
		events := make(chan watch.Event, 1)
		events <- watch.Event{Type: watch.Error, Object: &status}
		return watch.NewProxyWatcher(events), nil
	}
	return w, err
}

// untilReached calls attempt until the API server answers, even if it refuses.
func untilReached(ctx context.Context, attempt func() error) error {
	pause := wait.Backoff{Duration: retryFirst, Factor: 2, Jitter: 1, Steps: 1 << 30, Cap: retryMost}
	for failures := 0; ; failures++ {
		err := attempt()
		if err == nil || ctx.Err() != nil || !away(err) {
			if failures > 0 && ctx.Err() == nil {
				klog.FromContext(ctx).Info("the API server answers again", "failures", failures)
			}
			return err
		}
		if failures%logEvery == 0 {
			klog.FromContext(ctx).Error(err, "the API server does not answer; retrying", "failures", failures+1)
		}
		t := time.NewTimer(pause.Step())
		select {
		case <-ctx.Done():
		case <-t.C:
		}
		t.Stop()
	}
}

// away reports whether an error means that the API server cannot be reached, or cannot
// answer at the moment.
func away(err error) bool {
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		return true
	}
	code := status.Status().Code
	return code == http.StatusTooManyRequests || code == http.StatusServiceUnavailable || code == http.StatusInternalServerError || code == http.StatusBadGateway
}
