package apiserver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/envtest"
)

// Pool lends API servers to the tests of a package, one after the other: to start one
// takes longer than most tests. Its zero value lends API servers without any CRDs.
//
// A test finds what it would find in a new one: what the test before it wrote is taken
// out of the storage below the API. Where that is not enough, as the API server acts on
// more than its storage, the next test gets a new one.
//
// The package's TestMain ends them:
//
//	var servers = apiserver.Pool{Options: ...}
//	func TestMain(m *testing.M) { os.Exit(servers.Run(m)) }
type Pool struct {
	Options Options

	mu   sync.Mutex
	idle []lent
}

// lent is an API server that one test at a time has.
type lent struct {
	env     *envtest.Environment
	storage *storage
}

// Run runs the tests of m, ends the API servers, and returns the exit code.
func (p *Pool) Run(m *testing.M) int {
	code := m.Run()
	for {
		l, ok := p.take()
		if !ok {
			return code
		}
		if err := l.env.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, "stop an API server:", err)
			code = 1
		}
	}
}

// Start lends an API server to a test until it ends. Users that the test adds to it
// remain known. It fails the test where it cannot.
func (p *Pool) Start(t *testing.T) *envtest.Environment {
	t.Helper()
	l, ok := p.take()
	if !ok {
		l = p.start(t)
	}
	t.Cleanup(func() {
		if err := p.putBack(l, t.Failed()); err != nil {
			t.Error(err)
		}
	})
	return l.env
}

func (p *Pool) take() (lent, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	last := len(p.idle) - 1
	if last < 0 {
		return lent{}, false
	}
	l := p.idle[last]
	p.idle = p.idle[:last]
	return l, true
}

func (p *Pool) start(t *testing.T) lent {
	t.Helper()
	env, err := start(t.Context(), p.Options)
	if err == nil {
		var s *storage
		if s, err = newStorage(t.Context(), env); err == nil {
			return lent{env: env, storage: s}
		}
		err = errors.Join(err, env.Stop())
	}
	t.Fatalf("start the API server: %v", err)
	return lent{}
}

// putBack keeps an API server for the next test if it is as new, and ends it else. What a
// test that failed has left is not known.
func (p *Pool) putBack(l lent, failed bool) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	asNew := false
	var err error
	if !failed {
		asNew, err = l.storage.reset(ctx)
	}
	if !asNew {
		return errors.Join(err, l.env.Stop())
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.idle = append(p.idle, l)
	return nil
}
