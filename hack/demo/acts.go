package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/egressip-operator/egressip-operator/test/testbed"
)

// title begins a step and explains it.
func (d *demo) title(s string, explanation ...string) {
	fmt.Fprintf(d.out, "\n%s\n%s\n", s, strings.Repeat("-", len(s)))
	for _, line := range explanation {
		fmt.Fprintln(d.out, line)
	}
	fmt.Fprintln(d.out)
}

func (d *demo) elapsed() time.Duration { return time.Since(d.began).Round(100 * time.Millisecond) }

// slow runs something that takes a while, and prints when it began and how long it
// took.
func (d *demo) slow(what string, do func() error) error {
	fmt.Fprintf(d.out, "[%6s] %s ...\n", d.elapsed(), what)
	began := time.Now()
	if err := do(); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	fmt.Fprintf(d.out, "[%6s] Done in %s.\n", d.elapsed(), time.Since(began).Round(100*time.Millisecond))
	return nil
}

// await polls until is returns no error, within settleIn. It prints how long that
// took if a reader would wonder.
func (d *demo) await(ctx context.Context, what string, is func(context.Context) error) error {
	began := time.Now()
	err := testbed.Poll(ctx, settleIn, func() error { return is(ctx) })
	if err != nil {
		return fmt.Errorf("waiting for %s: %w", what, err)
	}
	if took := time.Since(began); took > time.Second {
		fmt.Fprintf(d.out, "[%6s] Waited %s for %s.\n", d.elapsed(), took.Round(100*time.Millisecond), what)
	}
	return nil
}

// kubectl runs kubectl and prints the command and its answer.
func (d *demo) kubectl(ctx context.Context, args ...string) (string, error) {
	out, err := d.cluster.Kubectl(ctx, args...)
	d.show("$ kubectl", args, out)
	if err != nil {
		fmt.Fprintf(d.out, "(The command failed: %v)\n", err)
	}
	return out, err
}

// onNode runs a command on a node and prints it and its answer.
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

// deploy creates the namespace if it does not exist, and a Deployment in it with
// one pod on each of that many nodes.
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
	return d.slow("Waiting for the pods", func() error {
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

// get sends a request from a pod to one of the bastion's addresses, with a path that no
// other request has.
func (d *demo) get(ctx context.Context, p testbed.Pod, bastion string) (path string, err error) {
	path = fmt.Sprintf("/%s/%s/%d", p.Namespace, p.Node, len(d.seen))
	_, err = d.kubectl(ctx, "-n", p.Namespace, "exec", p.Name, "-c", container, "--",
		"traffic", "get", "http://"+net.JoinHostPort(bastion, "8080")+path)
	return path, err
}

// eachPodIsSeenAs sends a request from each pod of a namespace to an address of the bastion,
// and compares the source in its access log with what want returns for the pod's node.
func (d *demo) eachPodIsSeenAs(ctx context.Context, step, namespace, bastion string, want func(node string) string) error {
	return d.eachPodIsSeenAsOneOf(ctx, step, namespace, bastion, func(node string) []string { return []string{want(node)} })
}

// eachPodIsSeenAsOneOf is eachPodIsSeenAs where a pod's source may be one of several.
func (d *demo) eachPodIsSeenAsOneOf(ctx context.Context, step, namespace, bastion string, want func(node string) []string) error {
	pods, err := d.cluster.Pods(ctx, namespace, "app=client")
	if err != nil {
		return err
	}
	if len(pods) == 0 {
		return fmt.Errorf("namespace %s has no pods", namespace)
	}
	var errs []error
	for _, p := range pods {
		allowed := want(p.Node)
		s := sighting{step: step, pod: p.Namespace + "/" + p.Name, node: p.Node, want: strings.Join(allowed, " or ")}
		path, err := d.get(ctx, p, bastion)
		if err == nil {
			s.got, err = d.logged(path)
		}
		s.ok = slices.Contains(allowed, s.got)
		d.seen = append(d.seen, s)
		if err == nil && !s.ok {
			err = fmt.Errorf("pod %s on %s: the bastion saw %s, want %s", s.pod, s.node, s.got, s.want)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// isDropped sends a request from a pod and expects that it does not arrive.
func (d *demo) isDropped(ctx context.Context, p testbed.Pod) error {
	s := sighting{step: "7 claim removed", pod: p.Namespace + "/" + p.Name, node: p.Node, want: "(dropped)", got: "(dropped)"}
	path, err := d.get(ctx, p, testbed.BastionIP)
	if err == nil {
		s.got = "(answered)"
	}
	if source, logErr := d.logged(path); logErr == nil {
		s.got = source
	}
	s.ok = s.got == s.want
	d.seen = append(d.seen, s)
	if !s.ok {
		return fmt.Errorf("pod %s on %s: no node claims its egress IP, yet the result is %s, not a dropped request", s.pod, s.node, s.got)
	}
	return nil
}

// logged finds the line of a path in the access log, prints it and returns its
// source.
func (d *demo) logged(path string) (string, error) {
	log, _, err := d.cluster.AccessLog().Since(0)
	if err != nil {
		return "", err
	}
	i := slices.IndexFunc(log, func(e testbed.Entry) bool { return e.URI == path })
	if i < 0 {
		return "", fmt.Errorf("the bastion's access log has no line for %s", path)
	}
	fmt.Fprintf(d.out, "The bastion's access log: %s\n", log[i].Line)
	return log[i].Source.String(), nil
}

func (d *demo) awaitAddress(ctx context.Context, node string, there bool) error {
	what := "the egress IP to appear on " + node
	if !there {
		what = "the egress IP to leave " + node
	}
	return d.await(ctx, what, func(ctx context.Context) error {
		out, err := d.cluster.NodeExec(ctx, node, "ip", "address", "show", "dev", "eth0")
		if err != nil {
			return err
		}
		if is := strings.Contains(out, "inet "+egressIP+"/"); is != there {
			return fmt.Errorf("address on the uplink: %t, want %t", is, there)
		}
		return nil
	})
}

func (d *demo) egressHost() string {
	nodes := d.cluster.Nodes()
	return nodes[len(nodes)-1]
}

func (d *demo) nodeIP(name string) string { return d.cluster.NodeIP(name).String() }

// table prints which source the bastion saw from each pod.
func (d *demo) table() {
	if len(d.seen) == 0 {
		return
	}
	fmt.Fprintln(d.out)
	w := tabwriter.NewWriter(d.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "STEP\tPOD\tNODE\tEXPECTED SOURCE\tSOURCE SEEN\tOK")
	for _, s := range d.seen {
		ok := "yes"
		if !s.ok {
			ok = "NO"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", s.step, s.pod, s.node, s.want, s.got, ok)
	}
	_ = w.Flush()
}

// contains returns an error unless the answer shows what it must.
func contains(out, want string) error {
	if !strings.Contains(out, want) {
		return fmt.Errorf("the answer lacks %q:\n%s", want, out)
	}
	return nil
}
