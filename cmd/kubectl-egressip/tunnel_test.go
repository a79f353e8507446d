package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/streaming/pkg/httpstream"
	streamspdy "k8s.io/streaming/pkg/httpstream/spdy"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// kubelet plays the part of a kubelet that forwards ports: to this machine's own, as a real one does
// for pods in the network of their node.
type kubelet struct {
	t      *testing.T
	server *httptest.Server
	open   sync.WaitGroup
}

// startKubelet makes a Node whose kubelet is played.
func startKubelet(t *testing.T, c client.Client, node string) {
	t.Helper()
	k := &kubelet{t: t}
	k.server = quietServer(http.HandlerFunc(k.forward))
	t.Cleanup(func() { k.server.Close(); k.open.Wait() })
	at, err := url.Parse(k.server.URL)
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(at.Host)
	n, err := net.LookupPort("tcp", port)
	if err != nil {
		t.Fatal(err)
	}
	object := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: node}}
	if err := c.Create(t.Context(), object); err != nil {
		t.Fatal(err)
	}
	object.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "127.0.0.1"}}
	object.Status.DaemonEndpoints.KubeletEndpoint.Port = int32(n) //nolint:gosec // a port
	if err := c.Status().Update(t.Context(), object); err != nil {
		t.Fatal(err)
	}
}

// quietServer serves HTTPS, and logs no connections that end early.
func quietServer(handler http.Handler) *httptest.Server {
	s := httptest.NewUnstartedServer(handler)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	return s
}

func (k *kubelet) forward(w http.ResponseWriter, r *http.Request) {
	if !strings.HasPrefix(r.URL.Path, "/portForward/") {
		http.NotFound(w, r)
		return
	}
	if _, err := httpstream.Handshake(r, w, []string{"portforward.k8s.io"}); err != nil {
		k.t.Error(err)
		return
	}
	streams := make(chan httpstream.Stream, 2)
	connection := streamspdy.NewResponseUpgrader().UpgradeResponse(w, r, func(s httpstream.Stream, _ <-chan struct{}) error {
		streams <- s
		return nil
	})
	if connection == nil {
		return
	}
	k.open.Go(func() {
		defer connection.Close()
		var report, data httpstream.Stream
		for report == nil || data == nil {
			select {
			case s := <-streams:
				if s.Headers().Get(corev1.StreamType) == corev1.StreamTypeError {
					report = s
				} else {
					data = s
				}
			case <-connection.CloseChan():
				return
			}
		}
		port, err := net.Dial("tcp", "127.0.0.1:"+data.Headers().Get(corev1.PortHeader)) //nolint:noctx // on this machine
		if err != nil {
			fmt.Fprintf(report, "cannot reach the port: %v", err)
			report.Close()
			<-connection.CloseChan()
			return
		}
		defer port.Close()
		go func() { <-connection.CloseChan(); port.Close() }()
		go func() { _, _ = io.Copy(port, data); port.Close() }()
		_, _ = io.Copy(data, port)
		report.Close()
		data.Close()
		<-connection.CloseChan()
	})
}

// runningPod makes a pod of ours that runs on a node, with a port for metrics.
func runningPod(t *testing.T, c client.Client, name, node, component string, port int32) *corev1.Pod {
	t.Helper()
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "egressip-system", Name: name, Labels: map[string]string{labelName: ourName, labelComponent: component}},
		Spec: corev1.PodSpec{
			NodeName: node, HostNetwork: true,
			Containers: []corev1.Container{{Name: component, Image: "x", Ports: []corev1.ContainerPort{{Name: metricsPortName, ContainerPort: port, HostPort: port}}}},
		},
	}
	if err := c.Create(t.Context(), pod); err != nil {
		t.Fatal(err)
	}
	pod.Status.Phase = corev1.PodRunning
	if err := c.Status().Update(t.Context(), pod); err != nil {
		t.Fatal(err)
	}
	return pod
}

// TestTunnel: a port of a pod is reached through a real API server, over a WebSocket and over SPDY. A
// port that nobody listens on, and a user without the right, get the reason.
func TestTunnel(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	s.create(t, systemNamespace())
	startKubelet(t, s, "node1")
	echo, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer echo.Close()
	go func() {
		for {
			c, err := echo.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(c, c); c.Close() }()
		}
	}()
	port := int32(echo.Addr().(*net.TCPAddr).Port) //nolint:gosec // a port
	pod := runningPod(t, s, "egressip-agent-1", "node1", componentAgent, port)

	for name, cfg := range map[string]*rest.Config{"WebSocket": s.env.Config, "SPDY": withoutWebSockets(t, s.env.Config)} {
		c, err := dialPod(t.Context(), cfg, pod, port)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		const said = "hello over the tunnel"
		if _, err := io.WriteString(c, said); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		heard := make([]byte, len(said))
		if _, err := io.ReadFull(c, heard); err != nil || string(heard) != said {
			t.Errorf("%s: heard %q, %v", name, heard, err)
		}
		c.Close()
		if _, err := c.Read(heard); err == nil {
			t.Errorf("%s: a closed connection can be read", name)
		}
	}

	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	free.Close()
	c, err := dialPod(t.Context(), s.env.Config, pod, int32(free.Addr().(*net.TCPAddr).Port)) //nolint:gosec // a port
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Read(make([]byte, 1)); err == nil || !strings.Contains(err.Error(), "the node says: cannot reach the port") {
		t.Errorf("a port that nobody listens on: %v", err)
	}

	stranger := rest.CopyConfig(s.env.Config)
	stranger.Impersonate = rest.ImpersonationConfig{UserName: "stranger"}
	if _, err := dialPod(t.Context(), stranger, pod, port); err == nil || !strings.Contains(err.Error(), "create pods/portforward in namespace egressip-system") {
		t.Errorf("who has no right is told: %v", err)
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := dialPod(over, s.env.Config, pod, port); err == nil {
		t.Error("it dials although its time is over")
	}
}

// withoutWebSockets leads to the API server over a proxy that takes no WebSockets.
func withoutWebSockets(t *testing.T, cfg *rest.Config) *rest.Config {
	t.Helper()
	proxy := quietServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.EqualFold(r.Header.Get("Upgrade"), "websocket") {
			http.Error(w, "no WebSockets here", http.StatusBadRequest)
			return
		}
		passSPDY(t, cfg, w, r)
	}))
	t.Cleanup(proxy.Close)
	return &rest.Config{Host: proxy.URL, TLSClientConfig: rest.TLSClientConfig{Insecure: true}}
}

// passSPDY passes a request that upgrades to the API server, byte by byte.
func passSPDY(t *testing.T, cfg *rest.Config, w http.ResponseWriter, r *http.Request) {
	t.Helper()
	settings, err := rest.TLSConfigFor(cfg)
	if err != nil {
		t.Error(err)
		return
	}
	at, err := url.Parse(cfg.Host)
	if err != nil {
		t.Error(err)
		return
	}
	settings.NextProtos = []string{"http/1.1"}
	server, err := (&tls.Dialer{Config: settings}).DialContext(r.Context(), "tcp", at.Host)
	if err != nil {
		t.Error(err)
		return
	}
	defer server.Close()
	r.Host = at.Host
	if err := r.Write(server); err != nil {
		t.Error(err)
		return
	}
	user, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		t.Error(err)
		return
	}
	defer user.Close()
	go func() { _, _ = io.Copy(server, buffered); server.Close() }()
	_, _ = io.Copy(user, server)
}

func systemNamespace() *corev1.Namespace {
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "egressip-system"}}
}

// may gives a user of the API server some rights in egressip-system.
func may(t *testing.T, c client.Client, user string, rules ...rbacv1.PolicyRule) {
	t.Helper()
	for _, object := range []client.Object{
		&rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Namespace: "egressip-system", Name: user}, Rules: rules},
		&rbacv1.RoleBinding{
			ObjectMeta: metav1.ObjectMeta{Namespace: "egressip-system", Name: user},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: user},
			Subjects:   []rbacv1.Subject{{Kind: rbacv1.UserKind, APIGroup: rbacv1.GroupName, Name: user}},
		},
	} {
		if err := c.Create(t.Context(), object); err != nil {
			t.Fatal(err)
		}
	}
}
