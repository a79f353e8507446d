package dataplane

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/iptables"
)

// Defaults of Config.
const (
	defaultOverlayPort = 9789
	defaultPinDir      = "/sys/fs/bpf/egressip"
)

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
	maps     *mapSet
	programs *programs
	guard    guard
	// swept: since this process began, connections have been compared with
	// their pods' ways once.
	swept bool

	announcements announcements
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
	return &Dataplane{cfg: cfg, nl: nl, iptables: drivers}, nil
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
	return c, errors.Join(errs...)
}

// Close gives up the handles. What is in the kernel stays: traffic flows on.
func (d *Dataplane) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	var errs []error
	if d.programs != nil {
		errs = append(errs, d.programs.close())
	}
	if d.maps != nil {
		errs = append(errs, d.maps.close())
	}
	errs = append(errs, d.guard.close())
	d.programs, d.maps, d.guard = nil, nil, guard{}
	d.nl.Close()
	return errors.Join(errs...)
}

// open opens the BPF maps and loads the programs, once.
func (d *Dataplane) open() error {
	if d.maps == nil {
		maps, err := openMaps(d.nl, d.cfg.PinDir)
		if err != nil {
			return err
		}
		d.maps = maps
	}
	if d.programs == nil {
		programs, err := loadPrograms(d.cfg.Marks, d.maps)
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
		d.announcements.run(ctx)
	}()
	err := watch(ctx, drift)
	stop()
	<-done
	return err
}

// repeatAfter are the seconds after which an announcement is repeated.
func repeatAfter() []int { return []int{1, 5} }

// announcements are egress IPs added of late.
type announcements struct {
	mu sync.Mutex
	// due counts, for each address, the seconds since it was added.
	due    map[netip.Addr]int
	uplink uplink
}

func (a *announcements) add(u uplink, ips []netip.Addr) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.uplink = u
	if a.due == nil {
		a.due = map[netip.Addr]int{}
	}
	for _, ip := range ips {
		a.due[ip] = 0
	}
}

// stop ends the announcements of an address that is about to go: nobody may
// hear of it once another host has it.
func (a *announcements) stop(ip netip.Addr) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.due, ip)
}

func (a *announcements) run(ctx context.Context) {
	second := time.NewTicker(time.Second)
	defer second.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-second.C:
			a.repeat()
		}
	}
}

// repeat announces what is due in this second. It holds the lock meanwhile, so
// that nothing is announced after stop.
func (a *announcements) repeat() {
	a.mu.Lock()
	defer a.mu.Unlock()
	var now []netip.Addr
	for ip := range a.due {
		a.due[ip]++
		if slices.Contains(repeatAfter(), a.due[ip]) {
			now = append(now, ip)
		}
		if a.due[ip] > slices.Max(repeatAfter()) {
			delete(a.due, ip)
		}
	}
	slices.SortFunc(now, netip.Addr.Compare)
	// The first announcement was made and its failure reported; a repetition
	// is for good measure.
	_ = announce(a.uplink, now)
}
