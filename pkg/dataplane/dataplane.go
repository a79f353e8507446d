package dataplane

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/bpf"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/iptables"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/neigh"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/overlay"
)

// Defaults of Config.
const (
	defaultOverlayPort = 9789
	defaultPinDir      = "/sys/fs/bpf/egressip"
)

// overlayName is the name of the overlay device.
const overlayName = overlay.Name

// Dataplane makes the kernel of this host equal to a State. Its methods may be
// called from several goroutines; Apply runs one at a time.
type Dataplane struct {
	cfg      Config
	nl       *netlink.Handle
	iptables map[Backend]*iptables.Driver

	// mu guards what follows, and the order of changes.
	mu sync.Mutex
	// maps and programs are opened by the first Apply, which is the first to
	// change anything.
	maps     *bpf.Maps
	programs *bpf.Programs
	guard    bpf.Guard
	// swept: since this process began, connections have been compared with
	// their pods' ways once.
	swept bool

	announcer neigh.Announcer
	// watch looks for other machines that have egress IPs of this host. Answers from
	// the MAC addresses in ignored mean nothing.
	watch   neigh.Watch
	ignored map[string]bool
}

// New opens what Apply needs. It changes nothing in the kernel. The error says
// what the host lacks, such as iptables.
func New(cfg Config) (*Dataplane, error) {
	cfg, err := cfg.complete()
	if err != nil {
		return nil, err
	}
	drivers, err := iptables.OpenInstalled()
	if err != nil {
		return nil, err
	}
	nl, err := netlink.NewHandle(unix.NETLINK_ROUTE, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	return &Dataplane{cfg: cfg, nl: nl, iptables: drivers, ignored: ignoredMACs(cfg.ARPIgnore)}, nil
}

// complete fills in defaults and checks the rest.
func (c Config) complete() (Config, error) {
	if c.Marks.Mask == 0 {
		c.Marks = DefaultMarks()
	}
	if c.OverlayPort == 0 {
		c.OverlayPort = defaultOverlayPort
	}
	if c.PinDir == "" {
		c.PinDir = defaultPinDir
	}
	errs := []error{c.Marks.Validate()}
	for _, b := range c.Backends {
		if b != NFT && b != Legacy {
			errs = append(errs, fmt.Errorf("iptables backend %q: neither %q nor %q", b, NFT, Legacy))
		}
	}
	switch c.ARPProbe {
	case "", ARPStrict, ARPWarn, ARPOff:
	default:
		errs = append(errs, fmt.Errorf("ARP probe %q: none of %q, %q and %q", c.ARPProbe, ARPStrict, ARPWarn, ARPOff))
	}
	return c, errors.Join(errs...)
}

// Close gives up the handles. What is in the kernel stays: traffic flows on.
func (d *Dataplane) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	var errs []error
	if d.programs != nil {
		errs = append(errs, d.programs.Close())
	}
	if d.maps != nil {
		errs = append(errs, d.maps.Close())
	}
	errs = append(errs, d.guard.Close(), d.watch.Close())
	d.programs, d.maps, d.guard = nil, nil, bpf.Guard{}
	d.nl.Close()
	return errors.Join(errs...)
}

// open opens the BPF maps and loads the programs, once.
func (d *Dataplane) open() error {
	if d.maps == nil {
		maps, err := bpf.OpenMaps(d.nl, d.cfg.PinDir, overlayName)
		if err != nil {
			return err
		}
		d.maps = maps
	}
	if d.programs == nil {
		programs, err := bpf.LoadPrograms(d.cfg.Marks, d.maps)
		if err != nil {
			return err
		}
		d.programs = programs
	}
	return nil
}

// Run calls drift whenever something changed in the kernel that Apply may have
// to mend, and repeats the announcements of new egress IPs: the first is
// easily lost. It works until ctx ends.
func (d *Dataplane) Run(ctx context.Context, drift func()) error {
	ctx, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		d.announcer.Run(ctx)
	}()
	err := watch(ctx, drift)
	stop()
	<-done
	return err
}
