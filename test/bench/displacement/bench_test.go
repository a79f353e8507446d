package main

import (
	"os"
	"strings"
	"testing"
	"time"
)

// The program runs itself again, as a host.
func TestMain(m *testing.M) {
	if os.Getenv(hostVariable) != "" {
		os.Exit(run())
	}
	os.Exit(m.Run())
}

// One insertion of each kind and a short fight work in each backend, and no packet has a wrong
// source.
func TestSmallMeasurement(t *testing.T) {
	var out strings.Builder
	if err := play(t.Context(), options{n: 1, rules: 10, fight: time.Second, seed: 1}, &out); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	for _, line := range []string{"nft    nat    all:", "nft    mangle all:", "nft    fight:", "legacy nat    all:", "legacy mangle all:", "legacy fight:"} {
		if !strings.Contains(out.String(), "\n"+line) {
			t.Errorf("no line %q in\n%s", line, out.String())
		}
	}
}
