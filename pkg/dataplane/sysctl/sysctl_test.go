package sysctl

import (
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/egressip-operator/egressip-operator/internal/testenv/netnstest"
)

func TestMain(m *testing.M) { os.Exit(netnstest.Run(m)) }

// The numbers are those of the settings that they are named by.
//
// Mutant killed: setting-of-another-number.
func TestSettingIsChangedWhereItDiffers(t *testing.T) {
	for _, s := range []Setting{Forwarding(), ReversePathFilter(), PromoteSecondaries()} {
		host, _, link := netnstest.Host(t, "eth0")
		path := OfDevice("eth0", s.name)
		host.Run(t, "echo 0 > "+path)
		before := host.Run(t, "sysctl net.ipv4.conf")
		for _, want := range []uint32{1, 0, 1} {
			host.Do(t, func() {
				netnstest.Twice(t, s.name, func() (int, error) { return Ensure(link, s, want) })
				if got, err := Get(path); err != nil || got != fmt.Sprint(want) {
					t.Errorf("%s is %q, %v", s.name, got, err)
				}
			})
		}
		host.Run(t, "echo 0 > "+path)
		if after := host.Run(t, "sysctl net.ipv4.conf"); after != before {
			t.Errorf("%s: other settings changed from\n%s to\n%s", s.name, before, after)
		}
	}
}

func TestMissingSettingIsAnError(t *testing.T) {
	host, h, link := netnstest.Host(t, "eth0")
	netnstest.Must(t, h.LinkDel(link))
	host.Do(t, func() {
		if n, err := Ensure(link, ReversePathFilter(), 2); n != 0 || !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%d changes, %v", n, err)
		}
	})
}
