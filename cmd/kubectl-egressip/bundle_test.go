package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
)

// planted is what must not get into a bundle.
const planted = "hunter2-do-not-tell"

// TestBundle: what is in the file, and what is not: a secret is planted everywhere where people put
// some.
//
// Mutants killed: bundle-tells-environments, bundle-tells-annotations, bundle-replaces-files.
func TestBundle(t *testing.T) {
	t.Parallel()
	h := startHealthy(t)
	secret := map[string]string{corev1.LastAppliedConfigAnnotation: planted, "example.com/token": planted}
	annotate := func(o client.Object) { o.SetAnnotations(secret) }
	h.create(t,
		&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: system, Name: "s", Labels: ours()}, StringData: map[string]string{"password": planted}},
		&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: system, Name: "c", Labels: ours()}, Data: map[string]string{"password": planted}},
	)
	h.runs(t, system, "sidecar", "node1", "10.1.8.1", func(p *corev1.Pod) {
		p.Labels = map[string]string{labelName: ourName, labelComponent: componentAgent, "example.com/label": planted}
		p.Annotations = secret
		p.Spec.Containers[0].Env = []corev1.EnvVar{{Name: "PASSWORD", Value: planted}}
		p.Spec.Containers[0].Command, p.Spec.Containers[0].Args = []string{planted}, []string{"--password=" + planted}
		p.Spec.Volumes = []corev1.Volume{{Name: planted}}
	})
	h.change(t, &appsv1.DaemonSet{ObjectMeta: metav1.ObjectMeta{Namespace: system, Name: "egressip-agent"}}, func(o client.Object) {
		annotate(o)
		o.(*appsv1.DaemonSet).Spec.Template.Spec.Containers[0].Env = []corev1.EnvVar{{Name: "PASSWORD", Value: planted}}
	})
	for _, object := range []client.Object{
		&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node1"}}, &v1.NetNamespace{ObjectMeta: metav1.ObjectMeta{Name: "test"}},
		&v1.HostSubnet{ObjectMeta: metav1.ObjectMeta{Name: "node1"}},
	} {
		h.change(t, object, annotate)
	}
	file := filepath.Join(t.TempDir(), "report.tar.gz")
	out, code := h.exits(t, "", "bundle", "--file", file)
	if code != 0 {
		t.Fatalf("exit code %d: %s", code, out)
	}
	files := unpack(t, file)
	for _, name := range []string{
		"versions.yaml", "objects/netnamespaces.yaml", "objects/hostsubnets.yaml", "objects/egressips.yaml", "objects/egressippools.yaml", "cluster/nodes.yaml",
		"cluster/pods.yaml", "cluster/workloads.yaml", "cluster/leases.yaml", "cluster/definitions.yaml", "cluster/events.yaml",
		"check.txt", "status.txt", "explain.txt", "networks.txt", "errors.txt",
	} {
		if _, ok := files["report/"+name]; !ok {
			t.Errorf("%s is missing in %s", name, out)
		}
		check(t, out, []string{"report/" + name}, nil)
	}
	for name, text := range files {
		if strings.Contains(text, planted) {
			t.Errorf("the secret is in %s:\n%s", name, text)
		}
	}
	check(t, files["report/objects/netnamespaces.yaml"], []string{"10.1.8.200", "name: shop", v1.AnnotationExcludeCIDRs}, nil)
	check(t, files["report/cluster/workloads.yaml"], []string{"- agent\n", "kind: Deployment"}, []string{"env:"})
	check(t, files["report/cluster/pods.yaml"], []string{"name: sidecar", "nodeName: node1"}, nil)
	check(t, files["report/status.txt"], []string{"node1   10.1.8.11"}, nil)
	// No kubelet runs here that has logs.
	check(t, files["report/errors.txt"], []string{"logs/agent-node1_c.log: "}, nil)
	if out, code = h.exits(t, "", "bundle", "--file", file); code != 1 || !strings.Contains(out, "exists") {
		t.Errorf("exit code %d of a file that exists: %s", code, out)
	}
}

func unpack(t *testing.T, file string) map[string]string {
	t.Helper()
	packed, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	unzipped, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		t.Fatal(err)
	}
	files := make(map[string]string)
	for archive := tar.NewReader(unzipped); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(archive)
		if err != nil {
			t.Fatal(err)
		}
		files[header.Name] = string(text)
	}
}
