package dataplane

import (
	"reflect"
	"testing"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
)

// States that differ in anything are not equal, and a clone shares nothing: on that it
// depends whether a pass may leave the kernel as it is.
//
// Mutants killed: locate-is-no-state, sources-are-no-pod, standby-is-of-pods.
func TestStatesAreComparedWhole(t *testing.T) {
	testenv.EachField(t, func(name string, s State) {
		clone := s.clone()
		if s.equal(State{}) || !s.equal(clone) {
			t.Errorf("%s: equal to none: %t; to its clone: %t", name, s.equal(State{}), s.equal(clone))
		}
		if ofPods := name == "Pods" || name == "Locate"; s.equalButPods(State{}) != ofPods {
			t.Errorf("%s: equal to none but for pods: %t", name, !ofPods)
		}
		a, b := reflect.ValueOf(s).FieldByName(name), reflect.ValueOf(clone).FieldByName(name)
		if a.Kind() == reflect.Slice && a.Pointer() == b.Pointer() {
			t.Errorf("%s: the clone shares it", name)
		}
	})
	testenv.EachField(t, func(name string, p Pod) {
		if p.equal(Pod{}) {
			t.Errorf("pods that differ in %s are equal", name)
		}
	})
}
