package controllers

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/utils/clock"
)

// TestPassWrites: a pass waits for half a second for a write, and not at all for the next one
// of the same object; answers that come late are taken by a later pass, which is requested.
func TestPassWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newPassWrites(clock.RealClock{})
		began, refusal := time.Now(), errors.New("refused")
		var answers []string
		write := func(host string, takes time.Duration, err error) passWrite {
			return passWrite{
				key:  writeKey{writesClaims, host},
				send: func() error { time.Sleep(takes); return err },
				answered: func(err error) error {
					answers = append(answers, fmt.Sprintf("%s after %s: %v", host, time.Since(began), err))
					return err
				},
			}
		}
		do := func(t *testing.T, took time.Duration, writes ...passWrite) {
			t.Helper()
			began = time.Now()
			if errs := errors.Join(w.do(claimWriters, writes)...); time.Since(began) != took || errs != nil {
				t.Errorf("took %s, want %s: %v", time.Since(began), took, errs)
			}
		}
		requested := func() bool {
			synctest.Wait()
			select {
			case <-w.changed:
				return true
			default:
				return false
			}
		}
		do(t, passPatience, write("node1", time.Second, refusal), write("node2", time.Millisecond, nil))
		if len(answers) != 1 || !w.underWay(writesClaims, "node1") || w.underWay(writesClaims, "node2") || requested() {
			t.Errorf("answered: %q; of node1, which is under way: %t", answers, w.underWay(writesClaims, "node1"))
		}
		time.Sleep(time.Second)
		if !requested() || w.underWay(writesClaims, "node1") {
			t.Error("the late answer does not make a pass")
		}
		if errs := w.settle(); len(errs) != 1 || !errors.Is(errs[0], refusal) || len(answers) != 2 {
			t.Errorf("late errors are %v; answered: %q", errs, answers)
		}
		do(t, 0, write("node1", time.Millisecond, nil)) // it is not waited for
		time.Sleep(time.Second)
		if errs := w.settle(); errors.Join(errs...) != nil || len(answers) != 3 {
			t.Errorf("late errors are %v; answered: %q", errs, answers)
		}
		do(t, time.Millisecond, write("node1", time.Millisecond, nil)) // as it was quick
	})
}

// TestWritesThatNobodyAnswers: if very many writes get no answer, a pass waits for them.
func TestWritesThatNobodyAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newPassWrites(clock.RealClock{})
		var writes []passWrite
		for i := range maxLate + 10 {
			writes = append(writes, passWrite{
				key:      writeKey{writesClaims, fmt.Sprintf("node%d", i)},
				send:     func() error { time.Sleep(requestTimeout); return errLate },
				answered: func(err error) error { return err },
			})
		}
		began := time.Now()
		errs := w.do(claimWriters, writes)
		if took := time.Since(began); took < requestTimeout || len(errs) < 10 || len(errs) > 10+claimWriters {
			t.Errorf("took %s, with %d answers", took, len(errs))
		}
		time.Sleep(requestTimeout)
		if late := w.settle(); len(late)+len(errs) != len(writes) {
			t.Errorf("%d answers, and %d late ones, of %d writes", len(errs), len(late), len(writes))
		}
	})
}
