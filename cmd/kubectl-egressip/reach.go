package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

const (
	// readerAccount is the ServiceAccount of the chart that may read what our pods serve.
	readerAccount = "egressip-reader"
	// tokenFor is how long a token for it is valid: the least that the API server takes.
	tokenFor = 10 * time.Minute
	// metricsPortName is the name of the container port at which our pods serve metrics and more.
	metricsPortName = "metrics"
	// reachWithin limits one request to a pod, with the tunnel that it needs.
	reachWithin = 30 * time.Second
	// answerAtMost limits an answer, in bytes.
	answerAtMost = 64 << 20
)

// reacher reads what our pods serve. Requests go through a tunnel of the API server, which
// ends in the pod: as with kubectl port-forward, the user needs no route to the node.
//
// The pods make their certificates themselves, and nothing vouches for these: what ends in
// the right pod is the tunnel. TLS is there because the pods speak nothing else, and because
// a pod in the host's network shares its ports with other processes of the node: whoever is
// root there could listen in its place, so it must not get a token that is worth something.
// Therefore the user's own token is used only where the API server gives none of the reader.
type reacher struct {
	cfg    *rest.Config
	tokens map[string]string // by namespace
	// dial connects to a port of a pod.
	dial func(ctx context.Context, cfg *rest.Config, pod *corev1.Pod, port int32) (net.Conn, error)
}

func newReacher(config clientcmd.ClientConfig) (*reacher, error) {
	cfg, err := config.ClientConfig()
	if err != nil {
		return nil, err
	}
	return &reacher{cfg: cfg, tokens: make(map[string]string), dial: dialPod}, nil
}

// get returns what a pod of ours serves under a path, which may have a query.
func (r *reacher) get(ctx context.Context, pod *corev1.Pod, path string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, reachWithin)
	defer cancel()
	answer, err := r.open(ctx, pod, path)
	if err != nil {
		return nil, err
	}
	defer answer.Close()
	text, err := io.ReadAll(io.LimitReader(answer, answerAtMost+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("read %s of pod %s/%s: %w", path, pod.Namespace, pod.Name, err)
	case len(text) > answerAtMost:
		return nil, fmt.Errorf("read %s of pod %s/%s: the answer has more than %d bytes; ask for less", path, pod.Namespace, pod.Name, answerAtMost)
	}
	return text, nil
}

// open is get for answers that go on: it returns the body, and ctx ends it.
func (r *reacher) open(ctx context.Context, pod *corev1.Pod, path string) (io.ReadCloser, error) {
	failed := func(err error) error {
		return fmt.Errorf("read %s of pod %s/%s: %w", path, pod.Namespace, pod.Name, err)
	}
	port, err := endpointPort(pod)
	if err != nil {
		return nil, failed(err)
	}
	token, err := r.token(ctx, pod.Namespace)
	if err != nil {
		return nil, failed(err)
	}
	target, err := url.Parse("https://" + net.JoinHostPort("egressip-operator", fmt.Sprint(port)) + path)
	if err != nil {
		return nil, failed(err)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, target.String(), http.NoBody)
	if err != nil {
		return nil, failed(err)
	}
	request.Header.Set("Authorization", "Bearer "+token)
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return r.dial(ctx, r.cfg, pod, port) },
		// See reacher: the tunnel ends in the pod.
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12}, //nolint:gosec // the certificate proves nothing
		DisableKeepAlives: true,
	}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return nil, failed(notTLS(err))
	}
	if response.StatusCode == http.StatusOK {
		return response.Body, nil
	}
	defer response.Body.Close()
	said, _ := io.ReadAll(io.LimitReader(response.Body, 4<<10))
	return nil, failed(statusError{code: response.StatusCode, said: strings.TrimSpace(string(said))})
}

// statusError is an answer that is none.
type statusError struct {
	code int
	said string
}

func (e statusError) Error() string {
	remedy := ""
	switch e.code {
	case http.StatusForbidden:
		remedy = "; ClusterRole egressip-reader allows it: the chart binds it to ServiceAccount " + readerAccount + " (reader.enabled)"
	case http.StatusNotFound:
		remedy = "; that pod may be of a version that does not serve it yet"
	}
	return fmt.Sprintf("status %d: %s%s", e.code, e.said, remedy)
}

// notTLS says what it means that a pod does not speak TLS.
func notTLS(err error) error {
	if record := (tls.RecordHeaderError{}); errors.As(err, &record) {
		return errors.New("it is not served over HTTPS: set metrics.secure=true in the chart (--metrics-secure), as this is served to known clients only")
	}
	return err
}

// endpointPort is the port at which a pod of ours serves metrics and more.
func endpointPort(pod *corev1.Pod) (int32, error) {
	if pod.Status.Phase != corev1.PodRunning {
		return 0, fmt.Errorf("the pod does not run: it is %s", pod.Status.Phase)
	}
	for i := range pod.Spec.Containers {
		for _, port := range pod.Spec.Containers[i].Ports {
			if port.Name == metricsPortName {
				return port.ContainerPort, nil
			}
		}
		// Agents name no port unless a PodMonitor needs it.
		for _, arg := range pod.Spec.Containers[i].Args {
			if address, ok := strings.CutPrefix(arg, "--metrics-bind-address="); ok {
				_, written, _ := strings.Cut(address, ":")
				if port, err := strconv.ParseUint(written, 10, 16); err == nil && port > 0 {
					return int32(port), nil
				}
			}
		}
	}
	return 0, fmt.Errorf("the pod has neither a port named %q nor one in --metrics-bind-address: set controller.metricsPort and agent.metricsPort of the chart to other values than 0", metricsPortName)
}

// token returns a token for pods in a namespace: a short-lived one of the reader, or, where the
// user may not have one, the user's own.
func (r *reacher) token(ctx context.Context, namespace string) (string, error) {
	if known, ok := r.tokens[namespace]; ok {
		return known, nil
	}
	client, err := corev1client.NewForConfig(r.cfg)
	if err != nil {
		return "", err
	}
	issued, err := client.ServiceAccounts(namespace).CreateToken(ctx, readerAccount, &authenticationv1.TokenRequest{
		Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: new(int64(tokenFor / time.Second))},
	}, metav1.CreateOptions{})
	account := "ServiceAccount " + namespace + "/" + readerAccount
	switch {
	case err == nil:
		r.tokens[namespace] = issued.Status.Token
		return issued.Status.Token, nil
	case apierrors.IsNotFound(err):
		return "", fmt.Errorf("there is no %s: set reader.enabled=true in the chart (with metrics.secure=true), or upgrade it", account)
	case !apierrors.IsForbidden(err):
		return "", fmt.Errorf("create a token of %s: %w", account, err)
	}
	own, ownErr := ownToken(r.cfg)
	if ownErr != nil {
		return "", fmt.Errorf("create a token of %s: %w; you need the right to create serviceaccounts/token of it, or a kubeconfig with a bearer token to which ClusterRole %s is bound: %w",
			account, err, readerAccount, ownErr)
	}
	r.tokens[namespace] = own
	return own, nil
}

// ownToken is the bearer token with which the user talks to the API server, wherever the
// kubeconfig has it from: a field, a file or a program.
func ownToken(cfg *rest.Config) (string, error) {
	var seen recordedHeader
	wrapped, err := rest.HTTPWrappersForConfig(cfg, &seen)
	if err != nil {
		return "", fmt.Errorf("read the kubeconfig's credentials: %w", err)
	}
	request, err := http.NewRequest(http.MethodGet, cfg.Host, http.NoBody) //nolint:noctx // it is sent nowhere
	if err != nil {
		return "", fmt.Errorf("read the kubeconfig's server: %w", err)
	}
	answer, err := wrapped.RoundTrip(request)
	if err != nil {
		return "", fmt.Errorf("read the kubeconfig's credentials: %w", err)
	}
	defer answer.Body.Close()
	scheme, token, _ := strings.Cut(string(seen), " ")
	if !strings.EqualFold(scheme, "Bearer") || token == "" {
		return "", errors.New("the kubeconfig has none: it has a certificate, or a name and a password")
	}
	return token, nil
}

// recordedHeader is a transport that sends nothing, and notes how requests are authorized.
type recordedHeader string

func (h *recordedHeader) RoundTrip(r *http.Request) (*http.Response, error) {
	*h = recordedHeader(r.Header.Get("Authorization"))
	return &http.Response{StatusCode: http.StatusNoContent, Body: http.NoBody, Request: r}, nil
}
