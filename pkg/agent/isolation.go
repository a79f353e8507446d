package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/pkg/online"
)

// The pace at which a host finds out whether it is cut off.
const (
	// lookEvery is the pause between two looks at which hosts the probes reach.
	lookEvery = 100 * time.Millisecond
	// askEvery is the pause between two requests to the API server, while any are
	// needed, and askWithin how long an answer may take. Several are on their way where
	// the API server is slow, each on a connection of its own. One that answers is
	// reached, however slow: where probes are blocked, nothing else speaks for a host.
	askEvery  = 250 * time.Millisecond
	askWithin = time.Second
)

// isolation finds out whether this host is cut off, so that it gives up its egress
// IPs before other hosts have them.
type isolation struct {
	log   logr.Logger
	clock clock.WithTicker
	// after is how long the host must be cut off; 0 for never.
	after time.Duration
	// contact returns how many hosts are watched and how many of them answer.
	contact func() (watched, answering int)
	// ask sends a request to the API server. err says that it cannot be reached;
	// current, that it has the same HostSubnet of this host as the cache. If it has
	// another one, that holds from now on.
	ask func(context.Context) (current bool, err error)
	// changed is raised when the host withdraws or returns.
	changed signal
	metrics *metrics

	mu    sync.Mutex
	state online.Isolation
	api   time.Time
}

// withdrawn reports whether the host must have no egress IPs.
func (i *isolation) withdrawn() bool {
	if i == nil {
		return false
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.state.Withdrawn
}

// run keeps looking until ctx ends.
func (i *isolation) run(ctx context.Context) error {
	ticker := i.clock.NewTicker(lookEvery)
	defer ticker.Stop()
	answers := make(chan bool, 1) // the API server was reached; whether the cache is current
	var asking sync.WaitGroup
	defer asking.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var asked time.Time
	for {
		current := false
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C():
		case current = <-answers:
			i.mu.Lock()
			i.api = i.clock.Now()
			i.mu.Unlock()
		}
		uncertain := i.look(current)
		if now := i.clock.Now(); uncertain && now.Sub(asked) >= askEvery {
			asked = now
			asking.Go(func() {
				askCtx, stop := context.WithTimeout(ctx, askWithin)
				defer stop()
				if current, err := i.ask(askCtx); err == nil {
					select {
					case answers <- current:
					case <-ctx.Done():
					}
				}
			})
		}
	}
}

// look draws the conclusion from what is known now.
func (i *isolation) look(current bool) (uncertain bool) {
	watched, answering := i.contact()
	i.mu.Lock()
	defer i.mu.Unlock()
	was := i.state.Withdrawn
	i.state = i.state.Next(online.Contact{Watched: watched, Answering: answering, API: i.api, Current: current}, i.after, i.clock.Now())
	if i.state.Withdrawn == was {
		return i.state.Uncertain()
	}
	i.changed.raise()
	if i.state.Withdrawn {
		i.metrics.withdrawn.Set(1)
		i.log.Info("this node reaches neither the API server nor most hosts: it gives up its egress IPs, because other hosts may have them now",
			"after", i.after.String(), "watched", watched, "answering", answering)
	} else {
		i.metrics.withdrawn.Set(0)
		i.log.Info("the API server is reached again: this node has the egress IPs that it claims")
	}
	return i.state.Uncertain()
}

// apiAsker returns a function that requests this node's HostSubnet from the API
// server, on connections of its own: an old connection may be dead unnoticed.
func apiAsker(cfg *rest.Config, scheme *runtime.Scheme, mapper meta.RESTMapper, objects *caches) (func(context.Context) (bool, error), error) {
	cfg = rest.CopyConfig(cfg)
	cfg.Timeout = askWithin
	cfg.NextProtos = []string{"http/1.1"} // a request that fails closes its connection
	cfg.Dial = (&net.Dialer{Timeout: askWithin}).DialContext
	cfg.QPS = -1
	httpClient, err := rest.HTTPClientFor(cfg)
	if err != nil {
		return nil, fmt.Errorf("set up the client that checks whether the API server is reached: %w", err)
	}
	c, err := client.New(cfg, client.Options{Scheme: scheme, Mapper: mapper, HTTPClient: httpClient})
	if err != nil {
		return nil, fmt.Errorf("set up the client that checks whether the API server is reached: %w", err)
	}
	return func(ctx context.Context) (bool, error) {
		cached, err := objects.ownHostSubnet(ctx)
		if client.IgnoreNotFound(err) != nil {
			return false, err
		}
		return askOnce(ctx, c, objects, objects.own.asks(cached))
	}, nil
}

// askOnce sends a request, and has the caches take the answer.
func askOnce(ctx context.Context, c client.Reader, objects *caches, q question) (current bool, err error) {
	live := &v1.HostSubnet{}
	err = c.Get(ctx, client.ObjectKey{Name: objects.options.NodeName}, live)
	switch status := apierrors.APIStatus(nil); {
	case err == nil:
		return objects.answered(q, live), nil
	case apierrors.IsNotFound(err):
		return objects.answered(q, nil), nil
	case errors.As(err, &status) && status.Status().Code >= http.StatusBadRequest && status.Status().Code < http.StatusInternalServerError:
		return false, nil // it answers, if with a refusal
	default:
		return false, fmt.Errorf("ask the API server for HostSubnet %s: %w", objects.options.NodeName, err)
	}
}
