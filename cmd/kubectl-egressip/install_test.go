package main

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
)

func TestParseFlags(t *testing.T) {
	t.Parallel()
	f := parseFlags([]string{"--cluster-cidrs=10.244.0.0/16,fd00:1::/48", "--service-cidrs=none", "--exclude-cidrs=10.9.0.1/8", "--strict=false", "--overlay-port=4790", "--v=2"})
	got := []any{len(f.cluster), len(f.service), f.exclude[0].String(), f.strict, f.overlayPort}
	if diff := cmp.Diff([]any{2, 0, "10.0.0.0/8", false, uint16(4790)}, got); diff != "" {
		t.Error(diff)
	}
	template := &corev1.PodTemplateSpec{Spec: corev1.PodSpec{Containers: []corev1.Container{{Args: []string{"x"}}, {Args: []string{"agent", "--a"}}}}}
	if args, ok := argumentsOf(template, componentAgent); !ok || len(args) != 1 {
		t.Errorf("%v, %t", args, ok)
	}
	if _, ok := argumentsOf(template, componentController); ok {
		t.Error("an agent is taken for a controller")
	}
}
