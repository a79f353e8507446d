package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/egressip-operator/egressip-operator/test/testbed"
)

// title says what comes next.
func (d *demo) title(s string) {
	fmt.Fprintf(d.out, "\n%s\n%s\n", s, strings.Repeat("-", len(s)))
}

func (d *demo) elapsed() time.Duration { return time.Since(d.began).Round(100 * time.Millisecond) }

// slow runs what takes a while, and tells that it began and how long it took.
func (d *demo) slow(what string, do func() error) error {
	fmt.Fprintf(d.out, "[%6s] %s ...\n", d.elapsed(), what)
	began := time.Now()
	if err := do(); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	fmt.Fprintf(d.out, "[%6s] ... done in %s\n", d.elapsed(), time.Since(began).Round(100*time.Millisecond))
	return nil
}

// await polls until is gives no error, within settleIn; it tells how long that
// took where it was long enough for a reader to wonder.
func (d *demo) await(ctx context.Context, what string, is func(context.Context) error) error {
	began := time.Now()
	err := testbed.Poll(ctx, settleIn, func() error { return is(ctx) })
	if err != nil {
		return fmt.Errorf("waiting for %s: %w", what, err)
	}
	if took := time.Since(began); took > time.Second {
		fmt.Fprintf(d.out, "[%6s] waited %s for %s\n", d.elapsed(), took.Round(100*time.Millisecond), what)
	}
	return nil
}

// kubectl prints the command and what it answered.
func (d *demo) kubectl(ctx context.Context, args ...string) (string, error) {
	out, err := d.cluster.Kubectl(ctx, args...)
	d.show("$ kubectl", args, out)
	if err != nil {
		fmt.Fprintf(d.out, "(failed: %v)\n", err)
	}
	return out, err
}

// onNode prints a command in a node's network namespace, and its answer.
func (d *demo) onNode(ctx context.Context, node string, command ...string) (string, error) {
	out, err := d.cluster.NodeExec(ctx, node, command...)
	d.show(node+"#", command, out)
	return out, err
}

func (d *demo) show(prompt string, args []string, out string) {
	words := make([]string, len(args))
	for i, a := range args {
		if words[i] = a; strings.ContainsAny(a, ` {}[]"`) {
			words[i] = "'" + a + "'"
		}
	}
	fmt.Fprintf(d.out, "%s %s\n", prompt, strings.Join(words, " "))
	if out = strings.TrimRight(out, "\n"); out != "" {
		fmt.Fprintln(d.out, out)
	}
}

// deploy makes a namespace, if there is none yet, and a deployment in it with
// one pod on each of so many nodes.
func (d *demo) deploy(ctx context.Context, namespace string, replicas int) error {
	if _, err := d.cluster.Kubectl(ctx, "get", "namespace", namespace); err != nil {
		if _, err := d.kubectl(ctx, "create", "namespace", namespace); err != nil {
			return err
		}
	}
	out, err := d.cluster.Apply(ctx, d.deployment(namespace, replicas))
	d.show("$ kubectl", []string{"apply", "-f", "client.yaml"}, out)
	if err != nil {
		return err
	}
	return d.slow("waiting for the pods", func() error {
		_, err := d.kubectl(ctx, "-n", namespace, "rollout", "status", "deployment/client", "--timeout="+settleIn.String())
		return err
	})
}

func (d *demo) deployment(namespace string, replicas int) string {
	return `apiVersion: apps/v1
kind: Deployment
metadata:
  name: client
  namespace: ` + namespace + `
spec:
  replicas: ` + strconv.Itoa(replicas) + `
  selector: {matchLabels: {app: client}}
  template:
    metadata: {labels: {app: client}}
    spec:
      terminationGracePeriodSeconds: 1
      topologySpreadConstraints:
      - maxSkew: 1
        topologyKey: kubernetes.io/hostname
        whenUnsatisfiable: DoNotSchedule
        labelSelector: {matchLabels: {app: client}}
      containers:
      - name: ` + container + `
        image: ` + testbed.TrafficImage + `
        imagePullPolicy: Never
        args: [serve, ":8080"]
        readinessProbe: {httpGet: {port: 8080, path: /}, periodSeconds: 1}
`
}

// get has a pod request the bastion, with a path that no other request has.
func (d *demo) get(ctx context.Context, p testbed.Pod) (path string, err error) {
	path = fmt.Sprintf("/%s/%s/%d", p.Namespace, p.Node, len(d.seen))
	_, err = d.kubectl(ctx, "-n", p.Namespace, "exec", p.Name, "-c", container, "--",
		"traffic", "get", "http://"+testbed.BastionIP+":8080"+path)
	return path, err
}

// eachPodIsSeenAs has each pod of a namespace request the bastion, and compares
// the source in its access log with what want says for the pod's node.
func (d *demo) eachPodIsSeenAs(ctx context.Context, step, namespace string, want func(node string) string) error {
	pods, err := d.cluster.Pods(ctx, namespace, "app=client")
	if err != nil {
		return err
	}
	if len(pods) == 0 {
		return fmt.Errorf("namespace %s has no pods to ask", namespace)
	}
	var errs []error
	for _, p := range pods {
		s := sighting{step: step, pod: p.Namespace + "/" + p.Name, node: p.Node, want: want(p.Node)}
		path, err := d.get(ctx, p)
		if err == nil {
			s.got, err = d.logged(path)
		}
		d.seen = append(d.seen, s)
		if err == nil && s.got != s.want {
			err = fmt.Errorf("pod %s on %s: the bastion saw %s, expected %s", s.pod, s.node, s.got, s.want)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// isDropped has a pod request the bastion, and demands that nothing arrives.
func (d *demo) isDropped(ctx context.Context, p testbed.Pod) error {
	s := sighting{step: "6 claim undone", pod: p.Namespace + "/" + p.Name, node: p.Node, want: "(dropped)", got: "(dropped)"}
	path, err := d.get(ctx, p)
	if err == nil {
		s.got = "(answered)"
	}
	if source, logErr := d.logged(path); logErr == nil {
		s.got = source
	}
	d.seen = append(d.seen, s)
	if s.got != s.want {
		return fmt.Errorf("pod %s on %s: requests an egress IP that no host claims, and yet: %s", s.pod, s.node, s.got)
	}
	return nil
}

// logged finds the access log's line of a path, prints it and gives its source.
func (d *demo) logged(path string) (string, error) {
	log, _, err := d.cluster.AccessLog().Since(0)
	if err != nil {
		return "", err
	}
	i := slices.IndexFunc(log, func(e testbed.Entry) bool { return e.URI == path })
	if i < 0 {
		return "", fmt.Errorf("the bastion's access log has no line for %s", path)
	}
	fmt.Fprintf(d.out, "bastion's access log: %s\n", log[i].Line)
	return log[i].Source.String(), nil
}

func (d *demo) awaitAddress(ctx context.Context, node string, there bool) error {
	what := "the address on " + node
	if !there {
		what = "the address to go from " + node
	}
	return d.await(ctx, what, func(ctx context.Context) error {
		out, err := d.cluster.NodeExec(ctx, node, "ip", "address", "show", "dev", "eth0")
		if err != nil {
			return err
		}
		if is := strings.Contains(out, "inet "+egressIP+"/"); is != there {
			return fmt.Errorf("address on the uplink: %t, wanted: %t", is, there)
		}
		return nil
	})
}

func (d *demo) egressHost() string {
	nodes := d.cluster.Nodes()
	return nodes[len(nodes)-1]
}

func (d *demo) nodeIP(name string) string { return d.cluster.NodeIP(name).String() }

// table tells who was seen from where.
func (d *demo) table() {
	if len(d.seen) == 0 {
		return
	}
	fmt.Fprintln(d.out)
	w := tabwriter.NewWriter(d.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "STEP\tPOD\tNODE\tEXPECTED SOURCE\tSOURCE SEEN\tOK")
	for _, s := range d.seen {
		ok := "yes"
		if s.want != s.got {
			ok = "NO"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", s.step, s.pod, s.node, s.want, s.got, ok)
	}
	_ = w.Flush()
}

// contains is the error of an answer that lacks what it must show.
func contains(out, want string) error {
	if !strings.Contains(out, want) {
		return fmt.Errorf("the answer lacks %q:\n%s", want, out)
	}
	return nil
}
