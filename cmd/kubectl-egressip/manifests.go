package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	ovnv1 "github.com/egressip-operator/egressip-operator/api/ovn/v1"
	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// input is what is converted, and what that depends on.
type input struct {
	egress.Objects
	namespaces []corev1.Namespace
	nodes      []corev1.Node
	// complete: there are no other Namespaces and Nodes. A file has those that its author saved.
	complete bool
	// ignored counts the objects of other kinds, by kind.
	ignored map[string]int
	// written are the objects of files as they are written there.
	written []writtenObject
}

// writtenObject is an object of a file: what it leaves out is not the same as what is empty.
type writtenObject struct {
	kind, name string
	text       json.RawMessage
}

// sorted returns the same with its objects in order of name: what is printed does not depend on the
// order of files.
func (in input) sorted() input {
	in.NetNamespaces = slices.SortedFunc(slices.Values(in.NetNamespaces), func(a, b v1.NetNamespace) int { return strings.Compare(a.Name, b.Name) })
	in.HostSubnets = slices.SortedFunc(slices.Values(in.HostSubnets), func(a, b v1.HostSubnet) int { return strings.Compare(a.Name, b.Name) })
	in.EgressIPs = slices.SortedFunc(slices.Values(in.EgressIPs), func(a, b ovnv1.EgressIP) int { return strings.Compare(a.Name, b.Name) })
	in.nodes = slices.SortedFunc(slices.Values(in.nodes), func(a, b corev1.Node) int { return strings.Compare(a.Name, b.Name) })
	return in
}

// readCluster reads what a cluster has. It may lack any of the kinds: one with OVN-Kubernetes has no
// NetNamespaces. Whose the definition of EgressIPs is does not matter here.
func readCluster(ctx context.Context, c client.Reader) (input, error) {
	var netNamespaces v1.NetNamespaceList
	var hostSubnets v1.HostSubnetList
	var egressIPs ovnv1.EgressIPList
	var namespaces corev1.NamespaceList
	var nodes corev1.NodeList
	for _, kind := range []struct {
		name string
		list client.ObjectList
	}{
		{"NetNamespaces", &netNamespaces},
		{"HostSubnets", &hostSubnets},
		{"EgressIPs", &egressIPs},
		{"Namespaces", &namespaces},
		{"Nodes", &nodes},
	} {
		if err := c.List(ctx, kind.list); err != nil && !isNoSuchKind(err) {
			return input{}, fmt.Errorf("list %s: %w", kind.name, err)
		}
	}
	return input{
		Objects:    egress.Objects{NetNamespaces: netNamespaces.Items, HostSubnets: hostSubnets.Items, EgressIPs: egressIPs.Items},
		namespaces: namespaces.Items, nodes: nodes.Items, complete: true,
	}, nil
}

// readFiles reads manifests; "-" is stdin.
func readFiles(names []string, stdin io.Reader) (input, error) {
	r := manifestReader{input: input{ignored: make(map[string]int)}, seen: make(map[string]bool)}
	for _, name := range names {
		if err := r.file(name, stdin); err != nil {
			return input{}, fmt.Errorf("read %s: %w", name, err)
		}
	}
	return r.input, nil
}

// manifestReader collects the objects of files.
type manifestReader struct {
	input
	// seen are the objects that were read: what is there twice may differ, and neither is right.
	seen map[string]bool
}

func (r *manifestReader) file(name string, stdin io.Reader) error {
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		stdin = f
	}
	decoder := utilyaml.NewYAMLOrJSONDecoder(stdin, 4096)
	for {
		var document json.RawMessage
		err := decoder.Decode(&document)
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		if err := r.object(document, metav1.TypeMeta{}); err != nil {
			return err
		}
	}
}

// manifest is what all objects have, and lists of them.
type manifest struct {
	metav1.TypeMeta `json:",inline"`
	Metadata        struct {
		Name string `json:"name"`
	} `json:"metadata"`
	Items []json.RawMessage `json:"items"`
}

// object reads one object, or each of a list. The items of a typed list do not say what they are.
func (r *manifestReader) object(written json.RawMessage, unless metav1.TypeMeta) error {
	if len(written) == 0 || string(written) == "null" {
		return nil // an empty document, as between two separators
	}
	var m manifest
	if err := json.Unmarshal(written, &m); err != nil {
		return fmt.Errorf("this is no object of Kubernetes: %w", err)
	}
	if m.Kind == "" {
		m.TypeMeta = unless
	}
	if kind, ok := strings.CutSuffix(m.Kind, "List"); ok {
		for _, item := range m.Items {
			if err := r.object(item, metav1.TypeMeta{APIVersion: m.APIVersion, Kind: kind}); err != nil {
				return err
			}
		}
		return nil
	}
	return r.add(m, written)
}

func (r *manifestReader) add(m manifest, written json.RawMessage) error {
	var err error
	switch m.APIVersion + " " + m.Kind {
	case v1.GroupVersion().String() + " NetNamespace":
		err = appendTo(&r.NetNamespaces, written)
	case v1.GroupVersion().String() + " HostSubnet":
		err = appendTo(&r.HostSubnets, written)
	case ovnv1.GroupVersion().String() + " EgressIP":
		err = appendTo(&r.EgressIPs, written)
	case "v1 Namespace":
		err = appendTo(&r.namespaces, written)
	case "v1 Node":
		err = appendTo(&r.nodes, written)
	case " ":
		return errors.New("an object has no apiVersion and kind")
	default:
		r.ignored[m.Kind]++
		return nil
	}
	name := m.Kind + " " + m.Metadata.Name
	switch {
	case m.Metadata.Name == "":
		return fmt.Errorf("a %s has no name", m.Kind)
	case err != nil:
		return fmt.Errorf("%s: %w", name, err)
	case r.seen[name]:
		return fmt.Errorf("%s is there twice: leave one out", name)
	}
	r.seen[name] = true
	r.written = append(r.written, writtenObject{m.Kind, m.Metadata.Name, written})
	return nil
}

func appendTo[T any](list *[]T, written json.RawMessage) error {
	var object T
	err := json.Unmarshal(written, &object)
	*list = append(*list, object)
	return err
}

// document is a manifest to apply: what is converted, and nothing else of the object.
type document struct {
	APIVersion string              `json:"apiVersion"`
	Kind       string              `json:"kind"`
	Metadata   documentMeta        `json:"metadata"`
	Spec       *ovnv1.EgressIPSpec `json:"spec,omitempty"`
	EgressIPs  []string            `json:"egressIPs,omitempty"`
}

type documentMeta struct {
	Name        string            `json:"name"`
	Labels      map[string]string `json:"labels,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

// conversion is what a conversion gives.
type conversion struct {
	documents []document
	// report is what is not carried over, or is another thing afterwards, with the remedy.
	report []egress.Problem
	// steps say in which order to change the clusters.
	steps []string
}

// lost reports what is not carried over.
func (c *conversion) lost(kind, name, field, format string, args ...any) {
	c.report = append(c.report, egress.Problem{
		Kind: kind, Name: name, Field: field, Message: fmt.Sprintf("%s %s, %s: ", kind, name, field) + fmt.Sprintf(format, args...),
	})
}

// print writes the manifests to one writer and the report to the other.
func (c *conversion) print(out, errOut io.Writer) error {
	for _, d := range c.documents {
		text, err := yaml.Marshal(d)
		if err != nil {
			return fmt.Errorf("write %s %s: %w", d.Kind, d.Metadata.Name, err)
		}
		if _, err := fmt.Fprintf(out, "---\n%s", text); err != nil {
			return err
		}
	}
	lines := make([]string, 0, len(c.report)+1+len(c.steps))
	for _, p := range c.report {
		lines = append(lines, p.Message)
	}
	if len(lines) > 0 && len(c.steps) > 0 {
		lines = append(lines, "")
	}
	for _, line := range append(lines, c.steps...) {
		if _, err := fmt.Fprintln(errOut, line); err != nil {
			return err
		}
	}
	return nil
}

// ignoredKinds says that a file had objects of other kinds.
func ignoredKinds(ignored map[string]int) string {
	var kinds []string
	for _, kind := range slices.Sorted(maps.Keys(ignored)) {
		kinds = append(kinds, fmt.Sprintf("%s (%d)", kind, ignored[kind]))
	}
	return "Ignored, as objects of other kinds: " + strings.Join(kinds, ", ") + "."
}
