package page_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/go-logr/logr"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/controllers"
	"github.com/egressip-operator/egressip-operator/internal/page"
	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/internal/testenv/apiserver"
)

// TestRealController: what changes in a real API server is seen in the page that a controller serves over
// TLS to a client with a token, for longer than the controller's server gives to requests.
func TestRealController(t *testing.T) {
	t.Parallel()
	b := browse(t, 1200, 1000)
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), v1.AddToScheme(scheme)); err != nil {
		t.Fatal(err)
	}
	env := apiserver.Start(t, apiserver.Options{CRDs: []string{"../../config/crd"}, Scheme: scheme})
	c, err := client.New(env.Config, client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	for _, object := range []client.Object{
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}},
		&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "looker"}},
		&rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "looker"}, Rules: []rbacv1.PolicyRule{{NonResourceURLs: []string{page.Path}, Verbs: []string{"get"}}}},
		&rbacv1.ClusterRoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: "looker"}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "looker"},
			Subjects: []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: "default", Name: "looker"}},
		},
	} {
		if err := c.Create(t.Context(), object); err != nil {
			t.Fatal(err)
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := l.Addr().String()
	l.Close()
	ctx, stop := context.WithCancel(logr.NewContext(context.WithoutCancel(t.Context()), logr.Discard()))
	done := make(chan error, 1)
	go func() {
		done <- controllers.Run(ctx, env.Config, controllers.Options{MetricsAddress: at, MetricsSecure: true, Page: true, NodeName: "node1"})
	}()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("the controller ended with %v", err)
		}
	})
	clients, err := kubernetes.NewForConfig(env.Config)
	if err != nil {
		t.Fatal(err)
	}
	issued, err := clients.CoreV1().ServiceAccounts("default").CreateToken(t.Context(), "looker", &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	proxy := httptest.NewServer(&httputil.ReverseProxy{
		Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}},
		ErrorLog:  log.New(io.Discard, "", 0),
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host = "https", at
			r.Out.Header.Set("Authorization", "Bearer "+issued.Status.Token)
		},
	})
	t.Cleanup(func() { proxy.CloseClientConnections(); proxy.Close() })
	testenv.Eventually(t, func(ctx context.Context) string {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, proxy.URL+page.Path+"/namespaces/shop", http.NoBody)
		if err != nil {
			return err.Error()
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			return err.Error()
		}
		response.Body.Close()
		if response.StatusCode != http.StatusOK {
			return response.Status
		}
		return ""
	})
	b.open(proxy.URL + page.Path + "/")
	if text := b.text("#serving"); text != "served by the controller on node1, which leads" {
		t.Errorf("the page says %q", text)
	}
	b.until(`document.querySelector("[data-level='failed'] .number").textContent === "0"`)
	// The server's limit for reading a request is ten seconds: a stream that falls under it is connected again.
	b.do(chromedp.Evaluate[chromedp.Void](`window.lost = 0; new MutationObserver(() => { if (document.getElementById("live").classList.contains("off")) window.lost++; }).observe(document.getElementById("live"), {attributes: true})`))
	b.until(`(window.begin ||= Date.now()) < Date.now() - 12000`)
	patch := client.RawPatch("application/merge-patch+json", []byte(`{"egressIPs": ["192.168.7.200"]}`))
	if err := c.Patch(t.Context(), &v1.NetNamespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}}, patch); err != nil {
		t.Fatal(err)
	}
	b.until(`document.querySelector("[data-level='failed'] .number").textContent === "1" && document.querySelector("#picture").innerText.includes("192.168.7.200")`)
	if lost := evaluate[int](b, "window.lost"); lost != 0 {
		t.Errorf("the stream was lost %d times", lost)
	}
	b.quiet()
}
