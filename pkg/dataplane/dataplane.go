package dataplane

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/address"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/bpf"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/iptables"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/neigh"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/nftables"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/overlay"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/rules"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/warning"
)

// Defaults of Config.
const (
	defaultOverlayPort = 9789
	defaultPinDir      = "/sys/fs/bpf/egressip"
	defaultAwayAfter   = 2 * time.Minute
)

// overlayName is the name of the overlay device.
const overlayName = overlay.Name

// Dataplane makes the kernel of this host equal to a State. Its methods may be
// called from several goroutines; Apply runs one at a time.
type Dataplane struct {
	cfg Config
	nl  *netlink.Handle
	// iptables are the drivers of the backends that are installed; iptablesErr is why
	// there are none.
	iptables    map[Backend]*iptables.Driver
	iptablesErr error
	nft         *nftables.Driver
	// ipv6: the kernel has IPv6. ip6tables are the drivers that are installed for it.
	ipv6      bool
	ip6tables map[Backend]*iptables.Driver

	// meant is what the last round wanted, for Live; nil before the first.
	meant atomic.Pointer[meant]

	// mu guards what follows, and the order of changes.
	mu sync.Mutex
	// sources are what the kernel said about the source of overlay packets.
	sources overlaySources
	// choice is the backend in use, nil until it is chosen. kernel is what the kernel was
	// found to have, nil until it was tried.
	choice *choice
	kernel *kernelSight
	// iptablesSeen are the rules of iptables as of iptablesAt, where they are not read
	// in each pass, iptablesWarnings what could not be read then.
	iptablesSeen     map[Backend]iptables.Tables
	iptablesWarnings []warning.Warning
	iptablesAt       time.Duration
	// noTables reports whether the kernel has no nf_tables: iptables-nft would look for the module.
	noTables func() bool
	// iptablesUsed are the backends of iptables that had our rules after the last pass.
	iptablesUsed []Backend
	// ousted are the moments at which others were found to come before our rules.
	ousted oustings
	// sight is what worked when the kernel was last seen.
	sight sight
	// ip6tablesSeen are the rules of iptables for IPv6, nil where they must be read.
	ip6tablesSeen map[Backend]iptables.Tables
	ip6tablesAt   time.Duration
	// renewed is when the kernel was told last that this agent is present; nil if it may
	// not be. stayed is the same for one before it.
	renewed, stayed *time.Duration
	// maps and programs are opened by the first Apply, which is the first to
	// change anything.
	maps     *bpf.Maps
	programs *bpf.Programs
	// source is the source of the overlay's packets that the programs set; the zero Addr
	// where the kernel chooses it, always so if keepsSource is set.
	source      netip.Addr
	keepsSource bool
	guard       bpf.Guard
	// serve6 is what was found out about egress IPs of IPv6.
	serve6 serve6
	// missingSets are the types of ipsets that the kernel did not have.
	missingSets map[string]attempt
	// answers is the same as maps, for AnswerProbes, which does not wait for Apply.
	answers struct {
		sync.Mutex
		maps *bpf.Maps
	}
	// tracked are the connections that the kernel tracks.
	tracked tracker
	// swept: since this process began, and since the kernel failed to forget
	// connections, they have been compared with their pods' ways once. unforgotten is
	// what must still be forgotten after such a failure; nil for nothing.
	swept       bool
	unforgotten *staleness

	// links is what was last seen of the links of pods.
	links linkSight

	// news is what the kernel reports as changed between two passes; steady is what the
	// last whole pass found, nil where that may no longer hold.
	news   news
	steady *steady

	// digest is that of the last State.
	digest *digest
	// routed are the routes and policy rules as they were last found, rendered is the
	// table that some rules were rendered to.
	routed   routed
	rendered struct {
		params rules.Params
		table  nftables.Table
	}

	// outlook is what was last seen of others on the host; changed is set when the kernel
	// reports a change.
	outlook outlook
	changed atomic.Bool
	// watched: the kernel reports changes. relinked is set with changed, and by news.
	watched, relinked atomic.Bool
	// located is how the kernel last led to pods in unknown networks.
	located located

	// usages are how much egress IPs are used; hosts reports whether the host has any.
	usages usages
	hosts  atomic.Bool

	announcer neigh.Announcer
	// watches look for other machines that have egress IPs of this host, at each interface
	// with egress IPs, by its index. Answers from the MAC addresses in ignored mean nothing.
	watches map[int]*neigh.Watch
	ignored map[string]bool

	// wayTables are the tables by which egress IPs leave that are not on the uplink; nil
	// where the kernel must be asked. pinned are the interfaces of such egress IPs as the
	// guard has them; nil where it was not told yet.
	wayTables map[wayKey]int
	// furthers are the interfaces other than the uplink as they were last found.
	furthers []address.Further
	// elsewhere is what the last pass found of them.
	elsewhere atomic.Pointer[elsewhere]
	pinned    map[netip.Addr]int
	// loosened are the reverse path filters of these that were made loose.
	loosened looseFilters
}

// New opens what Apply needs. It changes nothing in the kernel. The error says
// what the host lacks, such as iptables where Config asks for it.
func New(cfg Config) (*Dataplane, error) {
	cfg, err := cfg.complete()
	if err != nil {
		return nil, err
	}
	drivers, errIPTables := iptables.OpenInstalled()
	if errIPTables != nil && (cfg.IPTables || len(cfg.Backends) > 0 && !usesTable(cfg.Backends)) {
		return nil, errIPTables
	}
	nl, err := netlink.NewHandle(unix.NETLINK_ROUTE, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	nft, err := nftables.Open(!cfg.shared)
	if err != nil {
		nl.Close()
		return nil, err
	}
	d := &Dataplane{
		cfg: cfg, nl: nl, iptables: drivers, iptablesErr: errIPTables, nft: nft, noTables: nft.Absent, tracked: kernelTracker{}, loosened: looseFilters{}, ignored: ignoredMACs(cfg.ARPIgnore),
		ipv6: kernelHasIPv6(), ip6tables: openIP6Tables(),
	}
	if cfg.GuardFilter {
		d.guard = bpf.OldGuard()
	}
	return d, nil
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
	if c.AwayAfter == 0 {
		c.AwayAfter = defaultAwayAfter
	}
	errs := []error{c.Marks.Validate()}
	for _, b := range c.Backends {
		switch {
		case b != NFT && b != Legacy && b != NFTables:
			errs = append(errs, fmt.Errorf("backend %q: neither %q nor, of iptables, %q or %q", b, NFTables, NFT, Legacy))
		case b == NFTables && (len(c.Backends) > 1 || c.IPTables):
			errs = append(errs, fmt.Errorf("backend %q: together with iptables", b))
		}
	}
	switch c.SNATPorts {
	case "", PreservePorts, RandomPorts:
	default:
		errs = append(errs, fmt.Errorf("source ports %q: neither %q nor %q", c.SNATPorts, PreservePorts, RandomPorts))
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
		d.setAnswers(nil)
		errs = append(errs, d.maps.Close())
	}
	errs = append(errs, d.guard.Close(), d.closeWatches(func(int) bool { return true }), d.nft.Close())
	d.news.close()
	d.programs, d.maps, d.guard, d.steady = nil, nil, bpf.Guard{}, nil
	d.nl.Close()
	return errors.Join(errs...)
}

// open opens the BPF maps, once, and loads the programs, again where they send with a
// former address of the host. Other hosts know it by hostIP, so the overlay's packets
// must have that as source, whichever the kernel would choose. Maps and programs for IPv6
// come when they are wanted; IPv4 does not depend on them, unless the overlay is over IPv6.
func (d *Dataplane) open(hostIP netip.Addr) error {
	over6 := State{HostIP: hostIP}.overIPv6()
	if d.maps == nil {
		maps, err := bpf.OpenMaps(d.nl, d.cfg.PinDir, overlayName, bpf.Shape{OverIPv6: over6})
		if err != nil {
			return err
		}
		d.maps = maps
		d.setAnswers(maps)
	}
	source := netip.Addr{}
	if isAddress(hostIP) && !d.keepsSource {
		source = hostIP
	}
	try6 := d.serve6.wanted && d.ipv6 && (d.choice.table || len(d.ip6tables) > 0) && d.serve6.maps.due()
	if d.sendsFrom(source, over6) && !try6 {
		return nil
	}
	if source.IsValid() {
		// What cannot be tried is taken for missing: the overlay carries all the same, and
		// checkSources says where that is not enough.
		if sets, err := bpf.SetsSource(); err != nil || !sets {
			d.keepsSource = true
			return errors.Join(err, d.open(hostIP))
		}
	}
	if try6 {
		d.serve6.maps = made(d.load(bpf.Shape{IPv6: true, OverIPv6: over6}, source))
	}
	if d.sendsFrom(source, over6) {
		return nil
	}
	return d.loadAny(source, over6)
}

// loadAny loads the programs with maps for IPv6, if there are any or the overlay needs them, and
// else, or if that fails and the overlay does not need them, without.
func (d *Dataplane) loadAny(source netip.Addr, over6 bool) error {
	withIPv6 := d.maps.HasIPv6() || over6
	err := d.load(bpf.Shape{IPv6: withIPv6, OverIPv6: over6}, source)
	if err != nil && withIPv6 {
		d.serve6.maps = made(err)
	}
	if err != nil && withIPv6 && !over6 {
		err = d.load(bpf.Shape{}, source)
	}
	return err
}

// sendsFrom reports whether programs are loaded that give the overlay's packets a source, and
// have them of IPv6 or not.
func (d *Dataplane) sendsFrom(source netip.Addr, over6 bool) bool {
	return d.programs != nil && d.source == source && d.maps.OverIPv6() == over6
}

// load loads the programs with the open BPF maps, or with others if those are not of the
// shape that is asked for, and takes both in place of those that are there; attached
// programs work on. If it fails, these stay.
func (d *Dataplane) load(shape bpf.Shape, source netip.Addr) error {
	maps := d.maps
	if maps.HasIPv6() != shape.IPv6 || maps.OverIPv6() != shape.OverIPv6 {
		var err error
		if maps, err = bpf.OpenMaps(d.nl, d.cfg.PinDir, overlayName, shape); err != nil {
			return err
		}
	}
	programs, err := bpf.LoadPrograms(d.cfg.Marks, maps, d.cfg.ProbePort, source)
	if err != nil {
		if maps != d.maps {
			err = errors.Join(err, maps.Close())
		}
		return err
	}
	formerMaps, formerPrograms := d.maps, d.programs
	d.maps, d.programs, d.source = maps, programs, source
	var errs []error
	if formerPrograms != nil {
		errs = append(errs, formerPrograms.Close())
	}
	if formerMaps != maps {
		d.setAnswers(maps)
		errs = append(errs, formerMaps.Close())
	}
	return errors.Join(errs...)
}

// Answer is what the kernel answers to the probes of other hosts.
type Answer = bpf.Answer

// ErrNotOpen is the error of AnswerProbes before the first Apply.
var ErrNotOpen = errors.New("the data plane has not been applied yet")

// AnswerProbes sets what the kernel answers to the probes of other hosts that come over
// the overlay, from the next one on. It does not wait for Apply.
func (d *Dataplane) AnswerProbes(a Answer) error {
	d.answers.Lock()
	defer d.answers.Unlock()
	if d.answers.maps == nil {
		return ErrNotOpen
	}
	return d.answers.maps.PutAnswer(a)
}

func (d *Dataplane) setAnswers(m *bpf.Maps) {
	d.answers.Lock()
	defer d.answers.Unlock()
	d.answers.maps = m
}

// Run calls drift whenever something changed in the kernel that Apply may have
// to mend, and repeats the announcements of new egress IPs: the first is
// easily lost. It also counts the connections of egress IPs. It works until ctx ends.
func (d *Dataplane) Run(ctx context.Context, drift func()) error {
	ctx, stop := context.WithCancel(ctx)
	d.watched.Store(true)
	var done sync.WaitGroup
	done.Go(func() { d.announcer.Run(ctx) })
	done.Go(func() { d.countPorts(ctx) })
	concerns := func(typ uint16, data []byte) bool {
		return concernsRouting(typ, data) || d.elsewhere.Load().concerned(typ, data)
	}
	err := watch(ctx, concerns, func() {
		d.changed.Store(true)
		d.relinked.Store(true)
		drift()
	})
	d.watched.Store(false)
	stop()
	done.Wait()
	return err
}
