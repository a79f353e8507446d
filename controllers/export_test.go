package controllers

import (
	"context"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/client-go/rest"
)

// RunBeside is Run for one of several controllers in one process.
func RunBeside(ctx context.Context, cfg *rest.Config, o Options) error {
	return RunWithMetrics(ctx, cfg, o, prometheus.NewRegistry())
}

// RunWithMetrics is Run with another registry of metrics.
func RunWithMetrics(ctx context.Context, cfg *rest.Config, o Options, registry prometheus.Registerer) error {
	return runUntilLed(ctx, cfg, o, registry)
}
