package endpoint

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-logr/logr/testr"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/internal/testenv/apiserver"
)

const system = "egressip-system"

// TestMetricsOfARealCluster: with the roles of config/rbac, and those of the controller
// or the agent, metrics are served to clients with role egressip-metrics-reader, and to
// nobody else; and what is guarded, to clients with role egressip-reader.
//
// Mutants: everyone-may, anonymous-may, asks-for-metrics-alone.
func TestMetricsOfARealCluster(t *testing.T) {
	env := apiserver.Start(t, apiserver.Options{})
	admin, err := kubernetes.NewForConfig(env.Config)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := admin.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: system}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	applyRoles(t, env.Config, filepath.Join(env.BinaryAssetsDirectory, "kubectl"))
	scraper, stranger := token(t, admin, "prometheus"), token(t, admin, "stranger")
	if _, err := admin.RbacV1().ClusterRoleBindings().Create(t.Context(), &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "prometheus"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "egressip-metrics-reader"},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: system, Name: "prometheus"}},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	reader := issued(t, admin, "egressip-reader")
	for _, account := range []string{"egressip-controller", "egressip-agent"} {
		t.Run(account, func(t *testing.T) {
			cfg := rest.CopyConfig(env.Config)
			cfg.Impersonate = rest.ImpersonationConfig{
				UserName: "system:serviceaccount:" + system + ":" + account,
				Groups:   []string{"system:serviceaccounts", "system:serviceaccounts:" + system, "system:authenticated"},
			}
			at := "https://" + serveMetrics(t, cfg)
			url := at + metricsPath
			// RBAC takes a moment until it knows a new binding; meanwhile a no is remembered.
			for _, client := range []struct {
				who, token, path string
				status           int
				has              string
			}{
				{"a client without a token", "", metricsPath, http.StatusUnauthorized, ""},
				{"a client with a made-up token", "eyJhbGciOiJSUzI1NiJ9.e30.e30", metricsPath, http.StatusUnauthorized, ""},
				{"a ServiceAccount without the role", stranger, metricsPath, http.StatusForbidden, metricsPath},
				{"a ServiceAccount with the role", scraper, metricsPath, http.StatusOK, "# HELP"},
				{"a reader", reader, metricsPath, http.StatusForbidden, metricsPath},
				{"a client without a token", "", "/record", http.StatusUnauthorized, ""},
				{"a scraper", scraper, "/record", http.StatusForbidden, "/record"},
				{"a reader", reader, "/record?ip=10.1.8.200", http.StatusOK, "this is /record?ip=10.1.8.200"},
				{"a reader", reader, "/record/of/old", http.StatusOK, "this is /record/of/old?"},
				{"a reader", reader, "/records", http.StatusNotFound, ""},
				{"a reader", reader, secretPath, http.StatusForbidden, secretPath},
			} {
				testenv.Eventually(t, func(ctx context.Context) string {
					status, body, err := get(ctx, at+client.path, client.token)
					switch {
					case err != nil:
						return err.Error()
					case status != client.status:
						return fmt.Sprintf("%s is answered with %d to %s, want %d: %s", client.who, status, client.path, client.status, body)
					case !strings.Contains(body, client.has) || strings.Contains(body, "# HELP") != (client.has == "# HELP"):
						return fmt.Sprintf("%s gets from %s with status %d: %.200s", client.who, client.path, status, body)
					}
					return ""
				})
			}
			if status, _, err := get(t.Context(), url+"/other", scraper); err != nil || status != http.StatusNotFound {
				t.Errorf("another path is answered with %d, %v", status, err)
			}
			if status, _, err := get(t.Context(), "http"+strings.TrimPrefix(url, "https"), scraper); err == nil && status == http.StatusOK {
				t.Error("metrics are served over HTTP")
			}
		})
	}
}

// TestMetricsForAll: without protection, metrics need no API server.
func TestMetricsForAll(t *testing.T) {
	address := freeAddress(t)
	s, err := Metrics(Config{Log: testr.New(t), Address: address, Guarded: played()})
	if err != nil {
		t.Fatal(err)
	}
	run(t, s.Start)
	testenv.Eventually(t, func(ctx context.Context) string {
		status, body, err := get(ctx, "http://"+address+metricsPath, "")
		if err != nil || status != http.StatusOK || !strings.Contains(body, "# HELP") {
			return fmt.Sprintf("%d, %v: %.200s", status, err, body)
		}
		return ""
	})
	if status, body, err := get(t.Context(), "http://"+address+"/record", ""); err != nil || status != http.StatusForbidden || !strings.Contains(body, "metrics.secure") {
		t.Errorf("what is guarded is answered with %d, %v: %s", status, err, body)
	}
}

// played is what is guarded in tests: one path that readers may get, and one that nobody may.
func played() []Guarded {
	says := func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "this is %s?%s", r.URL.Path, r.URL.RawQuery)
	}
	return []Guarded{{Path: "/record", Handler: http.HandlerFunc(says)}, {Path: secretPath, Handler: http.HandlerFunc(says)}}
}

func serveMetrics(t *testing.T, cfg *rest.Config) (address string) {
	t.Helper()
	requests, err := rest.HTTPClientFor(cfg)
	if err != nil {
		t.Fatal(err)
	}
	address = freeAddress(t)
	s, err := Metrics(Config{Log: testr.New(t), Address: address, Secure: true, API: cfg, Requests: requests, Guarded: played()})
	if err != nil {
		t.Fatal(err)
	}
	run(t, s.Start)
	return address
}

// run runs a server until the test ends.
func run(t *testing.T, start func(context.Context) error) {
	t.Helper()
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- start(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("the server ended with %v", err)
		}
	})
}

func get(ctx context.Context, url, token string) (status int, body string, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return 0, "", err
	}
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true} //nolint:gosec // as Prometheus does
	response, err := transport.RoundTrip(request)
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	read, err := io.ReadAll(response.Body)
	return response.StatusCode, string(read), err
}

// applyRoles applies config/rbac.
func applyRoles(t *testing.T, cfg *rest.Config, kubectl string) {
	t.Helper()
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	if err := clientcmd.WriteToFile(api.Config{
		Clusters:  map[string]*api.Cluster{"c": {Server: cfg.Host, CertificateAuthorityData: cfg.CAData}},
		AuthInfos: map[string]*api.AuthInfo{"a": {ClientCertificateData: cfg.CertData, ClientKeyData: cfg.KeyData}},
		Contexts:  map[string]*api.Context{"x": {Cluster: "c", AuthInfo: "a"}}, CurrentContext: "x",
	}, kubeconfig); err != nil {
		t.Fatal(err)
	}
	command := exec.CommandContext(t.Context(), kubectl, "--kubeconfig", kubeconfig, "apply", "--server-side", "-k", "../../config/rbac")
	command.Env = append(os.Environ(), "HOME="+t.TempDir())
	if out, err := command.CombinedOutput(); err != nil {
		t.Fatalf("kubectl apply -k config/rbac: %v\n%s", err, out)
	}
}

// token makes a ServiceAccount, and returns a token of it.
func token(t *testing.T, admin kubernetes.Interface, account string) string {
	t.Helper()
	if _, err := admin.CoreV1().ServiceAccounts(system).Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: account}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	return issued(t, admin, account)
}

// issued is a token of a ServiceAccount that exists.
func issued(t *testing.T, admin kubernetes.Interface, account string) string {
	t.Helper()
	answer, err := admin.CoreV1().ServiceAccounts(system).CreateToken(t.Context(), account, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return answer.Status.Token
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
