package controllers

import (
	"errors"
	"time"

	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

// result ends a pass. A conflict is not an error: the pass is retried on what is
// there by then. Without errors the pass is repeated after wait, if that is not 0.
func result(wait time.Duration, errs ...error) (reconcile.Result, error) {
	var failed []error
	for _, err := range flat(errs) {
		switch {
		case apierrors.IsConflict(err):
			wait = catchUp
		case err != nil:
			failed = append(failed, err)
		}
	}
	if len(failed) > 0 {
		return reconcile.Result{}, errors.Join(failed...)
	}
	return reconcile.Result{RequeueAfter: wait}, nil
}

// flat splits joined errors.
func flat(errs []error) []error {
	var all []error
	for _, err := range errs {
		if joined, ok := err.(interface{ Unwrap() []error }); ok {
			all = append(all, flat(joined.Unwrap())...)
		} else {
			all = append(all, err)
		}
	}
	return all
}

// unlessGone is nil if the object to write no longer exists.
func unlessGone(err error) error {
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

func pointers[T any](items []T) []*T {
	p := make([]*T, len(items))
	for i := range items {
		p[i] = &items[i]
	}
	return p
}

// How many writes of one kind are under way at a time.
const (
	// objectWriters create, bind or delete objects.
	objectWriters = 16
	// claimWriters mark HostSubnets, or write their claims.
	claimWriters = 32
	// statusWriters write statuses. Their number is all that limits the rate.
	statusWriters = 16
)

// concurrently calls do for each of count positions, at most limit at a time, and
// returns the errors by position.
func concurrently(limit, count int, do func(i int) error) []error {
	errs := make([]error, count)
	var g errgroup.Group
	g.SetLimit(limit)
	for i := range count {
		g.Go(func() error {
			errs[i] = do(i)
			return nil
		})
	}
	_ = g.Wait() // the errors are in errs
	return errs
}
