package controllers

import (
	"context"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/client-go/rest"
)

// RunBeside is Run for one of several controllers in one process.
func RunBeside(ctx context.Context, cfg *rest.Config, o Options) error {
	return runUntilLed(ctx, cfg, o, prometheus.NewRegistry())
}
