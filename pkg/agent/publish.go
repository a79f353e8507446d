package agent

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/internal/statusapply"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// FieldManager is the name under which the agent owns its part of the status.
const FieldManager = "egressip-agent"

// The pace of writes. A thousand nodes may have the same problem at once.
const (
	// rewordAfter is the minimum age of a status that is rewritten because only
	// its messages differ.
	rewordAfter = 10 * time.Second
	// writeTimeout bounds one write.
	writeTimeout = 10 * time.Second
	// firstRewrite is the pause after a first failed write; it doubles up to
	// lastRewrite.
	firstRewrite = 500 * time.Millisecond
	lastRewrite  = 30 * time.Second
)

// publisher keeps the agent's part of its HostSubnet's status in line with the
// last observation. It has a goroutine of its own, so that an API server that does
// not answer never delays the kernel.
type publisher struct {
	log     logr.Logger
	clock   clock.Clock
	node    string
	version string
	// cached returns the HostSubnet as the cache has it.
	cached func(context.Context) (*v1.HostSubnet, error)
	// apply writes the object's status by server-side apply, and updates it
	// with the answer.
	apply   func(context.Context, *unstructured.Unstructured) error
	metrics *metrics
	// ballot names the hosts that are reported as silent at the moment of a write;
	// nil for none.
	ballot func() []string
	// answers reports whether the kernel answers the probes that come over the overlay;
	// nil for never.
	answers func() bool

	wake signal

	mu   sync.Mutex
	last *observation // the newest, or nil

	// What follows belongs to the goroutine of run.
	uid       string // of the HostSubnet that the rest is about
	applied   int64  // the generation that was brought to the kernel last
	written   ownStatus
	writtenAt time.Time
	// before is the version of the object in the cache at the last write: as long
	// as the cache still has that version, it does not show the write yet.
	before string
}

// publish replaces the observation that is reported. It does not block.
func (p *publisher) publish(o observation) {
	p.mu.Lock()
	p.last = &o
	p.mu.Unlock()
	p.wake.raise()
}

func (p *publisher) run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-p.wake:
			p.persist(ctx)
		}
	}
}

// persist tries to write until that succeeds or ctx ends; each attempt writes the
// newest observation.
func (p *publisher) persist(ctx context.Context) {
	for failures := 0; ; failures++ {
		err := p.sync(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err == nil && failures > 0:
			p.log.Info("the status can be written again", "failures", failures)
			return
		case err == nil:
			return
		case failures == 0:
			p.log.Error(err, "cannot write the status; trying again, and keeping the kernel as planned meanwhile")
		}
		p.metrics.statusErrors.Inc()
		pause := p.clock.NewTimer(min(firstRewrite<<min(failures, 16), lastRewrite))
		select {
		case <-ctx.Done():
		case <-pause.C():
		}
		pause.Stop()
	}
}

// sync writes the status where it differs.
func (p *publisher) sync(ctx context.Context) error {
	p.mu.Lock()
	o := p.last
	p.mu.Unlock()
	if o == nil {
		return nil
	}
	object, err := p.cached(ctx)
	if apierrors.IsNotFound(err) {
		return nil // the health endpoint says so
	}
	if err != nil {
		return fmt.Errorf("read HostSubnet %s from the cache: %w", p.node, err)
	}
	base := p.base(object)
	if o.err == nil {
		p.applied = o.decision.generation
	}
	want := p.want(*o, base)
	if !p.due(want, base) {
		return nil
	}
	return p.write(ctx, object, base, want)
}

// base returns the status that was written or read last.
func (p *publisher) base(object *v1.HostSubnet) ownStatus {
	base := ownPart(object)
	switch {
	case p.uid != string(object.UID):
		p.uid, p.applied, p.written, p.writtenAt, p.before = string(object.UID), base.generation, base, time.Time{}, ""
	case p.before == object.ResourceVersion:
		base = p.written
	}
	return base
}

// want returns the status that the observation asks for.
func (p *publisher) want(o observation, base ownStatus) ownStatus {
	want := statusOf(o, p.version, p.applied)
	if want.agent.UplinkCIDR == "" {
		// An uplink that is missing for a moment, as while it joins a bridge, must
		// not make all other nodes forget which claims its network can have.
		want.agent.Uplink, want.agent.UplinkCIDR, want.agent.UplinkMTU = base.agent.Uplink, base.agent.UplinkCIDR, base.agent.UplinkMTU
	}
	if !o.report.IPv6.Known && len(base.agent.Families) > 0 {
		// So it is with what the host can do about IPv6.
		want.agent.Families, want.agent.UplinkNetworks = base.agent.Families, base.agent.UplinkNetworks
		want.agent.IPv6Reason = base.agent.IPv6Reason
	}
	if o.decision.networksUnknown {
		want.agent.OtherNetworks = base.agent.OtherNetworks
	}
	if o.decision.addressesUnknown {
		want.agent.Addresses = base.agent.Addresses // as after a restart
	}
	if o.decision.podNetworksUnknown {
		want.agent.PodNetworks = base.agent.PodNetworks
	}
	want.inUseKnown = want.inUseKnown || base.inUseKnown
	if p.ballot != nil {
		want.agent.Silent = p.ballot()
	}
	if p.answers != nil && p.answers() {
		want.agent.Probes = v1.ProbesOverlay
	}
	return want
}

// due reports whether the status must be written now. What can wait is checked
// again after the next pass.
func (p *publisher) due(want, base ownStatus) bool {
	if want.equal(base) {
		return false
	}
	return !want.wordless().equal(base.wordless()) || p.clock.Since(p.writtenAt) >= rewordAfter
}

// write writes the status, and notes that it did.
func (p *publisher) write(ctx context.Context, object *v1.HostSubnet, base, want ownStatus) error {
	now := metav1.NewTime(p.clock.Now().Truncate(time.Second))
	want.ready.LastTransitionTime = transition(base.ready, want.ready, now)
	want.warnings.LastTransitionTime = transition(base.warnings, want.warnings, now)
	inUse := inUseCondition(want, now)
	if was := meta.FindStatusCondition(object.Status.Conditions, v1.ConditionAddressInUse); was != nil && was.Status == inUse.Status {
		inUse.LastTransitionTime = was.LastTransitionTime
	}
	u, err := applyObject(p.node, want, inUse)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	if err := p.apply(ctx, u); err != nil {
		if apierrors.IsNotFound(err) {
			return nil // deleted a moment ago; the cache will show it
		}
		return fmt.Errorf("write the status of HostSubnet %s: %w", p.node, err)
	}
	p.metrics.statusWrites.Inc()
	p.written, p.writtenAt, p.before = want, p.clock.Now(), object.ResourceVersion
	return nil
}

// transition returns when a condition got its status: now, if it has just changed.
func transition(base, want metav1.Condition, now metav1.Time) metav1.Time {
	if want.Status == base.Status && !base.LastTransitionTime.IsZero() {
		return base.LastTransitionTime
	}
	return now
}

// applyObject is the HostSubnet with the agent's fields alone: what it leaves
// out belongs to others.
func applyObject(node string, s ownStatus, inUse metav1.Condition) (*unstructured.Unstructured, error) {
	conditions := []metav1.Condition{s.ready, s.warnings}
	if s.inUseKnown {
		conditions = append(conditions, inUse)
	}
	status, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&v1.HostSubnetStatus{
		ObservedGeneration: s.generation,
		Agent:              &s.agent,
		EgressIPs:          s.claims,
		Conditions:         conditions,
	})
	if err != nil {
		return nil, fmt.Errorf("encode the status of HostSubnet %s: %w", node, err)
	}
	u := &unstructured.Unstructured{Object: map[string]any{"status": status}}
	u.SetGroupVersionKind(v1.GroupVersion().WithKind("HostSubnet"))
	u.SetName(node)
	return u, nil
}

// inUseCondition is the condition AddressInUse.
func inUseCondition(s ownStatus, now metav1.Time) metav1.Condition {
	c := metav1.Condition{
		Type: v1.ConditionAddressInUse, Status: metav1.ConditionFalse, Reason: ReasonNotInUse,
		Message:            "No other machine answers for an egress IP of this host any more.",
		ObservedGeneration: s.ready.ObservedGeneration, LastTransitionTime: now,
	}
	if s.inUse != "" {
		c.Status, c.Reason, c.Message = metav1.ConditionTrue, string(egress.ReasonAddressInUse), s.inUse
	}
	return c
}

// serverSideApply is the apply of a publisher that writes through c.
func serverSideApply(c client.Client, log logr.Logger) func(context.Context, *unstructured.Unstructured) error {
	logged := ""
	return func(ctx context.Context, u *unstructured.Unstructured) error {
		missing, err := statusapply.Apply(ctx, c.Status(), u, FieldManager)
		if fields := strings.Join(missing, ", "); fields != "" && fields != logged {
			logged = fields
			log.Info("the definition of HostSubnets is older than this agent and lacks fields: upgrade the CustomResourceDefinitions", "fields", fields)
		}
		return err
	}
}
