package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/go-logr/logr/testr"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/egressip-operator/egressip-operator/internal/endpoint"
	"github.com/egressip-operator/egressip-operator/internal/testenv"
)

// serveEndpoint serves what is guarded as our pods do, and returns the port.
func serveEndpoint(t *testing.T, cfg *rest.Config, secure bool, guarded ...endpoint.Guarded) (port int32) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	requests, err := rest.HTTPClientFor(cfg)
	if err != nil {
		t.Fatal(err)
	}
	s, err := endpoint.Metrics(endpoint.Config{Log: testr.New(t), Address: l.Addr().String(), Secure: secure, API: cfg, Requests: requests, Guarded: guarded})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- s.Start(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	testenv.Eventually(t, func(ctx context.Context) string {
		c, err := (&net.Dialer{}).DialContext(ctx, "tcp", l.Addr().String())
		if err != nil {
			return err.Error()
		}
		c.Close()
		return ""
	})
	return int32(l.Addr().(*net.TCPAddr).Port) //nolint:gosec // a port
}

// createReader makes what the chart makes for readers of what is guarded.
func createReader(t *testing.T, c client.Client, paths ...string) {
	t.Helper()
	subject := rbacv1.Subject{Kind: rbacv1.ServiceAccountKind, Namespace: "egressip-system", Name: readerAccount}
	for _, object := range []client.Object{
		&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "egressip-system", Name: readerAccount}},
		&rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: readerAccount}, Rules: []rbacv1.PolicyRule{{NonResourceURLs: paths, Verbs: []string{"get"}}}},
		&rbacv1.ClusterRoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: readerAccount}, Subjects: []rbacv1.Subject{subject},
			RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: readerAccount},
		},
	} {
		if err := c.Create(t.Context(), object); err != nil {
			t.Fatal(err)
		}
	}
}

// reach reads as the user of a kubeconfig.
func reach(t *testing.T, kubeconfig string) *reacher {
	t.Helper()
	rules := &clientcmd.ClientConfigLoadingRules{ExplicitPath: kubeconfig}
	r, err := newReacher(clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{}))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestReach: what a pod serves to known clients is read through the API server: with a token of the
// reader that was made for it, and with the user's own only where the user may not make one. Who may
// do neither is told which right is missing.
//
// Mutant: own-token-first.
func TestReach(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	s.create(t, systemNamespace())
	startKubelet(t, s, "node1")
	var last atomic.Value // the token of the last request
	says := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		last.Store(strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "))
		fmt.Fprintf(w, "this is %s?%s", r.URL.Path, r.URL.RawQuery)
	})
	port := serveEndpoint(t, s.env.Config, true, endpoint.Guarded{Path: "/record", Handler: says}, endpoint.Guarded{Path: "/secret", Handler: says})
	pod := runningPod(t, s, "egressip-controller-1", "node1", componentController, port)
	admin := reach(t, s.kubeconfig)
	fails := func(who string, r *reacher, pod *corev1.Pod, path string, parts ...string) {
		t.Helper()
		text, err := r.get(t.Context(), pod, path)
		for _, part := range append(parts, "pod egressip-system/"+pod.Name) {
			if err == nil || !strings.Contains(err.Error(), part) {
				t.Errorf("%s gets %q and error %v; want %q in it", who, text, err, part)
			}
		}
	}
	fails("an administrator of a cluster without the account", admin, pod, "/record", "reader.enabled=true", "egressip-system/egressip-reader")

	createReader(t, s, "/record")
	gets := func(who string, r *reacher) {
		t.Helper()
		testenv.Eventually(t, func(ctx context.Context) string { // RBAC takes a moment until it knows a binding
			text, err := r.get(ctx, pod, "/record?ip=10.1.8.200&limit=5")
			if want := "this is /record?ip=10.1.8.200&limit=5"; err != nil || string(text) != want {
				return fmt.Sprintf("%s gets %q and error %v, want %q", who, text, err, want)
			}
			return ""
		})
	}
	gets("an administrator", admin)
	if used, ok := last.Load().(string); !ok || used != admin.tokens["egressip-system"] {
		t.Error("the request came with another token than the reader's")
	}
	fails("an administrator", admin, pod, "/secret", "status 403", "ClusterRole egressip-reader")
	fails("an administrator", admin, pod, "/other", "status 404", "version")

	// A user with a bearer token, and the same one who may make tokens of the reader, too.
	clients, err := kubernetes.NewForConfig(s.env.Config)
	if err != nil {
		t.Fatal(err)
	}
	const user = "system:serviceaccount:egressip-system:operations"
	s.create(t, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "egressip-system", Name: "operations"}},
		&rbacv1.ClusterRoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: "operations"}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: readerAccount},
			Subjects: []rbacv1.Subject{{Kind: rbacv1.UserKind, APIGroup: rbacv1.GroupName, Name: user}},
		})
	may(t, s, user, rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"pods/portforward"}, Verbs: []string{"create"}})
	issued, err := clients.CoreV1().ServiceAccounts("egressip-system").CreateToken(t.Context(), "operations", &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	own := issued.Status.Token
	kubeconfig := tokenKubeconfig(t, s, own)
	gets("a user with a token of the kubeconfig", reach(t, kubeconfig))
	if last.Load() != own {
		t.Error("the request came with another token than the user's")
	}
	may(t, s, user+":more", rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"serviceaccounts/token"}, ResourceNames: []string{readerAccount}, Verbs: []string{"create"}})
	s.create(t, &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Namespace: "egressip-system", Name: "more"}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: user + ":more"},
		Subjects: []rbacv1.Subject{{Kind: rbacv1.UserKind, APIGroup: rbacv1.GroupName, Name: user}},
	})
	testenv.Eventually(t, func(ctx context.Context) string {
		if _, err := reach(t, kubeconfig).get(ctx, pod, "/record"); err != nil || last.Load() == own {
			return fmt.Sprintf("who may make tokens of the reader still sends its own: %v", err)
		}
		return ""
	})

	// One with a certificate, who may forward ports alone.
	may(t, s, "certified", rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"pods/portforward"}, Verbs: []string{"create"}})
	fails("a user with a certificate", reach(t, s.user(t, envtest.User{Name: "certified"})), pod, "/record",
		"create serviceaccounts/token", "the kubeconfig has none")

	// Pods that cannot be asked.
	fails("an administrator", admin, runningPod(t, s, "egressip-controller-2", "node1", componentController, serveEndpoint(t, s.env.Config, false)), "/record", "metrics.secure=true")
	waits := pod.DeepCopy()
	waits.Status.Phase = corev1.PodPending
	fails("an administrator", admin, waits, "/record", "it is Pending")
	closed := pod.DeepCopy()
	closed.Spec.Containers[0].Ports = nil
	fails("an administrator", admin, closed, "/record", "controller.metricsPort")
}

// TestOwnToken: a token of the kubeconfig is found, also one that a program gives.
func TestOwnToken(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	program := filepath.Join(dir, "login")
	script := "#!/bin/sh\n" + `echo '{"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": {"token": "from-a-program"}}'` + "\n"
	file := filepath.Join(dir, "token")
	for path, text := range map[string]string{program: script, file: "from-a-file"} {
		if err := os.WriteFile(path, []byte(text), 0o700); err != nil { //nolint:gosec // it is run
			t.Fatal(err)
		}
	}
	for user, want := range map[string]string{
		"token: written":                 "written",
		"tokenFile: " + file:             "from-a-file",
		"username: me, password: secret": "",
		"exec: {apiVersion: client.authentication.k8s.io/v1, command: " + program + ", interactiveMode: Never}": "from-a-program",
	} {
		kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
		text := "{apiVersion: v1, kind: Config, current-context: c, contexts: [{name: c, context: {cluster: c, user: u}}], " +
			"clusters: [{name: c, cluster: {server: 'https://127.0.0.1:1'}}], users: [{name: u, user: {" + user + "}}]}"
		if err := os.WriteFile(kubeconfig, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := ownToken(reach(t, kubeconfig).cfg)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%s: token %q, %v", user, got, err)
		}
	}
}

// TestLongAnswers: an answer without an end is not read without an end.
func TestLongAnswers(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	s.create(t, systemNamespace())
	createReader(t, s, "/record")
	port := serveEndpoint(t, s.env.Config, true, endpoint.Guarded{Path: "/record", Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		for text := strings.Repeat("x", 1<<20); ; {
			if _, err := io.WriteString(w, text); err != nil {
				return
			}
		}
	})})
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "egressip-system", Name: "p"}, Status: corev1.PodStatus{Phase: corev1.PodRunning},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Ports: []corev1.ContainerPort{{Name: metricsPortName, ContainerPort: port}}}}},
	}
	r := reach(t, s.kubeconfig)
	r.dial = func(ctx context.Context, _ *rest.Config, _ *corev1.Pod, port int32) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", port))
	}
	testenv.Eventually(t, func(ctx context.Context) string {
		if _, err := r.get(ctx, pod, "/record"); err == nil || !strings.Contains(err.Error(), "ask for less") {
			return fmt.Sprint(err)
		}
		return ""
	})
}

// tokenKubeconfig is the path of a kubeconfig with a bearer token.
func tokenKubeconfig(t *testing.T, s server, token string) string {
	t.Helper()
	rules := &clientcmd.ClientConfigLoadingRules{ExplicitPath: s.kubeconfig}
	config, err := rules.Load()
	if err != nil {
		t.Fatal(err)
	}
	for _, user := range config.AuthInfos {
		user.ClientCertificateData, user.ClientKeyData, user.Token = nil, nil, token
	}
	path := filepath.Join(t.TempDir(), "kubeconfig")
	if err := clientcmd.WriteToFile(*config, path); err != nil {
		t.Fatal(err)
	}
	return path
}
