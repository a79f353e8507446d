package dataplane

import (
	"context"
	"errors"
)

// Cleanup removes everything of ours from the host, in the reverse of the order in
// which it was made, and keeps all else. It removes what it finds, whole or in
// parts; where there is nothing it does nothing. No agent may run at the same time.
// From then on pods' traffic leaves as the host's own rules say.
func Cleanup(ctx context.Context, cfg Config) error {
	d, err := New(cfg)
	if err != nil {
		return err
	}
	return errors.Join(removeAll(ctx, d), d.Close())
}

// Cleanup removes everything of ours from the host, as the function does, for a process
// that has served it and ends.
func (d *Dataplane) Cleanup(ctx context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.steady = nil
	return removeAll(ctx, d)
}

func removeAll(ctx context.Context, d *Dataplane) error {
	observed, err := observe(ctx, view{d: d})
	errs := []error{err}
	for _, k := range inventory() {
		if k.remove != nil {
			errs = append(errs, k.remove(ctx, d, observed))
		}
	}
	return errors.Join(errs...)
}

// Leftovers lists what Cleanup would remove from the host, one object in each line,
// in the order of removal. It changes nothing.
func Leftovers(ctx context.Context, cfg Config) ([]string, error) {
	d, err := New(cfg)
	if err != nil {
		return nil, err
	}
	list, err := listAll(ctx, d)
	return list, errors.Join(err, d.Close())
}

func listAll(ctx context.Context, d *Dataplane) (list []string, err error) {
	var errs []error
	for _, k := range inventory() {
		if k.list != nil {
			objects, err := k.list(ctx, d)
			list, errs = append(list, objects...), append(errs, err)
		}
	}
	return list, errors.Join(errs...)
}
