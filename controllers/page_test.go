package controllers_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/egressip-operator/egressip-operator/controllers"
	"github.com/egressip-operator/egressip-operator/internal/testenv"
)

// TestPageOfEveryReplica: the controller that leads and the one that stands by serve the same page, to
// who may get it alone; what changes in the API is on both.
//
// Mutants: page-swaps-who-leads, page-misses-status-of-egressips.
func TestPageOfEveryReplica(t *testing.T) {
	a := startAPI(t)
	a.create(t,
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: system}},
		&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "looker", Namespace: system}},
		&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "stranger", Namespace: system}},
		&rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "looker"}, Rules: []rbacv1.PolicyRule{{NonResourceURLs: []string{"/page"}, Verbs: []string{"get"}}}},
		&rbacv1.ClusterRoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: "looker"}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "looker"},
			Subjects: []rbacv1.Subject{{Kind: "ServiceAccount", Name: "looker", Namespace: system}},
		},
	)
	a.node(t, "node1", "10.254.1.0/24", "192.168.7.11")
	a.node(t, "node2", "10.254.2.0/24", "192.168.7.12")
	a.agents(t)
	var addresses []string
	for _, node := range []string{"node1", "node2"} {
		o := controllers.Options{
			LeaderElection: true, LeaderElectionNamespace: system, NodeName: node, PodUID: "pod", EgressIPs: true,
			MetricsAddress: freeAddress(t), MetricsSecure: true, Page: true,
		}
		addresses = append(addresses, "https://"+o.MetricsAddress)
		p := a.start(t, o)
		if node == "node1" {
			testenv.Eventually(t, func(context.Context) string {
				if !strings.Contains(p.log.String(), "Successfully acquired lease") {
					return "the controller does not lead yet"
				}
				return ""
			})
		}
	}
	looker, stranger := a.tokenOf(t, "looker", "node1").BearerToken, a.tokenOf(t, "stranger", "node2").BearerToken
	shows := func(path string, parts ...string) {
		t.Helper()
		for i, address := range addresses {
			testenv.Eventually(t, func(ctx context.Context) string {
				status, text, err := getPage(ctx, address+path, looker)
				if err != nil || status != http.StatusOK {
					return fmt.Sprintf("%s of controller %d: %d, %v", path, i+1, status, err)
				}
				for _, part := range append(parts, []string{"node1, which leads", "node2, which stands by"}[i]) {
					if !strings.Contains(text, part) {
						return fmt.Sprintf("%s of controller %d does not say %q:\n%s", path, i+1, part, text)
					}
				}
				return ""
			})
		}
	}
	a.namespace(t, "shop")
	a.request(t, "shop", "192.168.7.200")
	shows("/page/namespaces/shop", "Traffic is dropped.", "NotClaimed")
	a.claim(t, "node2", "192.168.7.200")
	shows("/page/namespaces/shop", "Traffic leaves with 192.168.7.200 by node2.", "configured", "says the same")
	a.assignable(t, "node1")
	a.patch(t, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}}, `{"metadata": {"labels": {"env": "prod"}}}`)
	a.egressIP(t, "web", "192.168.7.201")
	shows("/page/namespaces/shop", `href="../egressips/web"`)
	// Its condition is the last that changes.
	shows("/page/egressips/web", "Traffic leaves with 192.168.7.201 by node1.", "says the same")

	for token, want := range map[string]int{"": http.StatusUnauthorized, "made-up": http.StatusUnauthorized, stranger: http.StatusForbidden} {
		for _, path := range []string{"/page", "/page/", "/page/events", "/page/assets/main.js"} {
			if status, _, err := getPage(t.Context(), addresses[0]+path, token); err != nil || status != want {
				t.Errorf("%s is answered with %d (%v) to a client that may not get it, want %d", path, status, err, want)
			}
		}
	}
}

// getPage gets a path with a token.
func getPage(ctx context.Context, url, token string) (status int, text string, err error) {
	ctx, cancel := context.WithTimeout(ctx, testenv.Stretch(10*time.Second))
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return 0, "", err
	}
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return response.StatusCode, string(body), err
}
