package sysctl

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/egressip-operator/egressip-operator/internal/testenv/netnstest"
)

func TestSettingIsWrittenWhereItDiffers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "rp_filter")
	netnstest.Must(t, os.WriteFile(path, []byte("1\n"), 0o600))
	netnstest.Twice(t, "setting", func() (int, error) { return Ensure(path, "2") })
	if got, err := Get(path); err != nil || got != "2" {
		t.Errorf("setting is %q, %v", got, err)
	}
}

func TestMissingSettingIsAnError(t *testing.T) {
	if n, err := Ensure(OfDevice("no-such-device", "rp_filter"), "2"); n != 0 || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%d changes, %v", n, err)
	}
}
