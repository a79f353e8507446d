package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/test/testbed"
)

// lossless has pods open connections to the bastion for a time, while something is
// done that must not take longer. Each connection must be answered, and show the
// egress IP.
func (b *bed) lossless(t *testing.T, pods []testbed.Pod, length time.Duration, do func()) {
	t.Helper()
	waits := map[string]func(bool) (string, error){}
	seen := b.watchEcho(t, b.bastion)
	for _, p := range pods {
		wait, err := b.Background(t.Context(), p.Place(), "traffic", "watch",
			"-every", "50ms", "-for", length.String(), "-timeout", "2s", "tcp://"+b.echo())
		if err != nil {
			t.Fatal(err)
		}
		waits[p.Node] = wait
	}
	b.eventually(t, seen)
	began := time.Now()
	do()
	took := time.Since(began)
	answered := 0
	for node, wait := range waits {
		out, err := wait(false)
		if err != nil {
			t.Errorf("the prober on %s: %v", node, err)
		}
		good, bad := b.readResults(t, out)
		if answered += good; len(bad) > 0 {
			t.Errorf("%d of %d connections from %s were lost: %s", len(bad), good+len(bad), node, strings.Join(bad[:min(3, len(bad))], ""))
		}
	}
	t.Logf("%d connections answered; what was done beside them took %s", answered, took)
	if took > length {
		t.Errorf("what was done took %s, longer than the probers, which ran for %s", took, length)
	}
}

// oneOwner watches the lists of egress IPs of all HostSubnets until the function that it
// returns is called: that fails the test if an address was on two lists at any time, or if
// a controller wrote claims again after another one had.
func (b *bed) oneOwner(t *testing.T) (verify func()) {
	t.Helper()
	config, err := b.RESTConfig()
	if err != nil {
		t.Fatal(err)
	}
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	hosts := client.Resource(v1.GroupVersion().WithResource("hostsubnets"))
	list, err := hosts.List(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	w, err := hosts.Watch(ctx, metav1.ListOptions{ResourceVersion: list.GetResourceVersion()})
	if err != nil {
		t.Fatal(err)
	}
	o := owners{claims: make(map[string][]string)}
	for i := range list.Items {
		o.take(watch.Event{Type: watch.Added, Object: &list.Items[i]})
	}
	done := make(chan struct{})
	changes, ended := 0, false
	go func() {
		defer close(done)
		for event := range w.ResultChan() {
			if ctx.Err() != nil {
				continue // that it was ended may come as an error
			}
			changes++
			o.take(event)
		}
		ended = ctx.Err() == nil
	}()
	return func() {
		t.Helper()
		cancel()
		<-done
		t.Logf("%d changes of HostSubnets were seen; claims were written by %q", changes, o.writers)
		if ended {
			t.Error("the watch of HostSubnets ended before the test")
		}
		for _, wrong := range o.wrong {
			t.Error(wrong)
		}
	}
}

// owners are the egress IPs that each host claims, and who wrote them.
type owners struct {
	claims map[string][]string
	// writers are the marks of those who changed claims, in that order.
	writers []string
	wrong   []string
}

func (o *owners) fault(format string, args ...any) {
	o.wrong = append(o.wrong, fmt.Sprintf(format, args...))
}

// take takes a change of a HostSubnet. Changes of one kind of object come in the order
// in which they were made.
func (o *owners) take(event watch.Event) {
	h, ok := event.Object.(*unstructured.Unstructured)
	if !ok || event.Type == watch.Error {
		o.fault("the watch of HostSubnets failed: %v", event.Object)
		return
	}
	if event.Type == watch.Deleted {
		delete(o.claims, h.GetName())
		return
	}
	claims, _, err := unstructured.NestedStringSlice(h.Object, "egressIPs")
	if err != nil {
		o.fault("%v", err)
	}
	assigned, _, err := unstructured.NestedStringSlice(h.Object, "assignedEgressIPs")
	if err != nil {
		o.fault("%v", err)
	}
	claims = append(claims, assigned...)
	if before, known := o.claims[h.GetName()]; known && !slices.Equal(before, claims) {
		o.wrote(h.GetAnnotations()[v1.AnnotationClaimsWriter])
	}
	o.claims[h.GetName()] = claims
	for _, name := range slices.Sorted(maps.Keys(o.claims)) {
		if name == h.GetName() {
			continue
		}
		for _, ip := range claims {
			if slices.Contains(o.claims[name], ip) {
				o.fault("%s and %s both claim %s", name, h.GetName(), ip)
			}
		}
	}
}

// wrote takes the mark of whoever changed claims.
func (o *owners) wrote(writer string) {
	switch at := slices.Index(o.writers, writer); {
	case at < 0:
		o.writers = append(o.writers, writer)
	case at < len(o.writers)-1:
		o.fault("%q wrote claims after %q had", writer, o.writers[len(o.writers)-1])
	}
}

// hasEvent reports whether an event for an object has a message with a text.
func (b *bed) hasEvent(t *testing.T, object, reason, text string) error {
	t.Helper()
	out, err := b.Kubectl(t.Context(), "get", "events", "--all-namespaces", "--field-selector", "involvedObject.name="+object+",reason="+reason,
		"-o", `jsonpath={range .items[*]}{.message}{"\n"}{end}`)
	if err == nil && !strings.Contains(out, text) {
		err = fmt.Errorf("no event %s of %s has %q in its message:\n%s", reason, object, text, out)
	}
	return err
}

// hasCondition reports whether a HostSubnet has a condition with a status and, if it is
// not empty, a reason.
func (b *bed) hasCondition(t *testing.T, host, condition, status, reason string) error {
	t.Helper()
	out, err := b.Kubectl(t.Context(), "get", "hostsubnet", host, "-o", fmt.Sprintf("jsonpath={.status.conditions[?(@.type==%q)]}", condition))
	if err != nil {
		return err
	}
	var c metav1.Condition
	if out != "" {
		err = json.Unmarshal([]byte(out), &c)
	}
	if err == nil && (string(c.Status) != status || reason != "" && c.Reason != reason) {
		err = fmt.Errorf("condition %s of %s is %s (%s): %s; want %s %s", condition, host, c.Status, c.Reason, c.Message, status, reason)
	}
	return err
}

// afterwards does something when the test ends, passed or not.
func (b *bed) afterwards(t *testing.T, do func(context.Context) error) {
	t.Helper()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), testenv.Stretch(settle))
		defer cancel()
		if err := do(ctx); err != nil {
			t.Error(err)
		}
	})
}

// onEach does something on each of some nodes.
func onEach(nodes []string, do func(node string) error) error {
	var errs []error
	for _, node := range nodes {
		errs = append(errs, do(node))
	}
	return errors.Join(errs...)
}
