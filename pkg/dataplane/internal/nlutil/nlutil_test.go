package nlutil

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func TestCountCountsSuccessOnly(t *testing.T) {
	n := 0
	if err := Count(&n, "add", nil); err != nil || n != 1 {
		t.Errorf("success: %d changes, %v", n, err)
	}
	if err := Count(&n, "add", unix.EPERM); !errors.Is(err, unix.EPERM) || n != 1 {
		t.Errorf("failure: %d changes, %v", n, err)
	}
}

func TestMissingLinkIsRecognised(t *testing.T) {
	for err, want := range map[error]bool{
		fmt.Errorf("look up: %w", netlink.LinkNotFoundError{}): true,
		fmt.Errorf("look up: %w", unix.ENODEV):                 true,
		unix.EPERM:                                             false,
	} {
		if got := IsLinkNotFound(err); got != want {
			t.Errorf("%v: %t", err, got)
		}
	}
	if IsLinkNotFound(nil) {
		t.Error("no error says that a link is missing")
	}
}

func TestConversions(t *testing.T) {
	if got := IPNet(netip.MustParsePrefix("192.0.2.0/25")).String(); got != "192.0.2.0/25" {
		t.Errorf("prefix became %s", got)
	}
	b := binary.NativeEndian.AppendUint16(nil, BigEndian16(0x0800))
	if b[0] != 0x08 || b[1] != 0 {
		t.Errorf("in memory: %x", b)
	}
}

// Kills the mutant that takes an interrupted list for an error.
func TestWholeAsksAgain(t *testing.T) {
	for _, c := range []struct {
		name      string
		failures  int
		err, want error
		calls     int
	}{
		{"at once", 0, nil, nil, 1},
		{"interrupted twice", 2, netlink.ErrDumpInterrupted, nil, 3},
		{"interrupted without end", 1000, netlink.ErrDumpInterrupted, netlink.ErrDumpInterrupted, maxDumps},
		{"another error", 1, unix.EPERM, unix.EPERM, 1},
	} {
		calls := 0
		_, err := Whole(func() ([]int, error) {
			calls++
			if calls <= c.failures {
				return nil, c.err
			}
			return nil, nil
		})
		if !errors.Is(err, c.want) || calls != c.calls {
			t.Errorf("%s: %v after %d calls", c.name, err, calls)
		}
	}
}
