package apiserver

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
)

// storage is the etcd below an API server, and what it had in the beginning.
type storage struct {
	url string
	// first is what was there in the beginning, by key.
	first map[string]entry
}

// entry is a key of etcd. Its JSON is that of etcd's gateway: bytes in base64, numbers as text.
type entry struct {
	Key      []byte `json:"key"`
	Value    []byte `json:"value,omitempty"`
	Revision int64  `json:"mod_revision,omitempty,string"`
}

// isOwn reports whether a key is one of the API server itself, which it renews.
func isOwn(key string) bool {
	return strings.HasPrefix(key, "/registry/masterleases/") || strings.HasPrefix(key, "/registry/leases/kube-system/apiserver-")
}

// isRemembered reports whether a key is that of an object that the API server acts on for
// some time after it is gone or changed: it compiles policies once a second, and a resource
// that a CRD defined stays in its answers.
func isRemembered(key string) bool {
	return slices.ContainsFunc([]string{
		"/registry/apiextensions.k8s.io/", "/registry/apiregistration.k8s.io/",
		"/registry/validatingadmissionpolic", "/registry/mutatingadmissionpolic",
		"/registry/validatingwebhook", "/registry/mutatingwebhook",
	}, func(prefix string) bool { return strings.HasPrefix(key, prefix) })
}

// newStorage waits until the API server has written all that it writes by itself after
// it starts, and looks at it.
func newStorage(ctx context.Context, env *envtest.Environment) (*storage, error) {
	client, err := kubernetes.NewForConfig(env.Config)
	if err != nil {
		return nil, err
	}
	if wrong := testenv.Await(ctx, time.Minute, func(ctx context.Context) string { return unwritten(ctx, client) }); wrong != "" {
		return nil, fmt.Errorf("wait for what the API server writes by itself: %s", wrong)
	}
	s := &storage{url: env.ControlPlane.Etcd.URL.String(), first: map[string]entry{}}
	all, err := s.list(ctx, false)
	if err != nil {
		return nil, err
	}
	for _, e := range all {
		s.first[string(e.Key)] = e
	}
	return s, nil
}

// unwritten names something that the API server has still to write.
func unwritten(ctx context.Context, c kubernetes.Interface) string {
	for _, name := range []string{"default", "kube-system", "kube-public", "kube-node-lease"} {
		if _, err := c.CoreV1().Namespaces().Get(ctx, name, metav1.GetOptions{}); err != nil {
			return err.Error()
		}
	}
	_, err := c.CoreV1().Services("default").Get(ctx, "kubernetes", metav1.GetOptions{})
	if err == nil {
		_, err = c.CoreV1().Endpoints("default").Get(ctx, "kubernetes", metav1.GetOptions{})
	}
	if err == nil {
		_, err = c.DiscoveryV1().EndpointSlices("default").Get(ctx, "kubernetes", metav1.GetOptions{})
	}
	for _, name := range []string{"extension-apiserver-authentication", "kube-apiserver-legacy-service-account-token-tracking"} {
		if err == nil {
			_, err = c.CoreV1().ConfigMaps("kube-system").Get(ctx, name, metav1.GetOptions{})
		}
	}
	if err == nil {
		err = c.CoreV1().RESTClient().Get().AbsPath("/readyz").Do(ctx).Error()
	}
	if err != nil {
		return err.Error()
	}
	return ""
}

// reset makes the storage what it was in the beginning. It reports whether the API server
// is then as it was, too.
func (s *storage) reset(ctx context.Context) (asNew bool, err error) {
	now, err := s.list(ctx, true)
	if err != nil {
		return false, err
	}
	asNew = true
	var changed []entry
	missing := map[string]bool{}
	for key := range s.first {
		missing[key] = true
	}
	for i := 0; i < len(now); {
		key := string(now[i].Key)
		delete(missing, key)
		first, known := s.first[key]
		if isOwn(key) || known && first.Revision == now[i].Revision {
			i++
			continue
		}
		asNew = asNew && !isRemembered(key)
		if known {
			changed = append(changed, first)
			i++
			continue
		}
		// All strangers that follow one another are deleted at once.
		from := now[i].Key
		for i++; i < len(now) && s.stranger(string(now[i].Key)); i++ {
			asNew = asNew && !isRemembered(string(now[i].Key))
		}
		to := append(slices.Clone(now[i-1].Key), 0)
		if err := s.call(ctx, "deleterange", map[string]any{"key": from, "range_end": to}, nil); err != nil {
			return false, err
		}
	}
	for key := range missing {
		asNew = asNew && !isRemembered(key)
		if !isOwn(key) {
			changed = append(changed, s.first[key])
		}
	}
	for _, e := range changed {
		var answer struct {
			Header struct {
				Revision int64 `json:"revision,string"`
			} `json:"header"`
		}
		if err := s.call(ctx, "put", map[string]any{"key": e.Key, "value": e.Value}, &answer); err != nil {
			return false, err
		}
		e.Revision = answer.Header.Revision
		s.first[string(e.Key)] = e
	}
	return asNew, nil
}

// stranger reports whether a key was not there in the beginning.
func (s *storage) stranger(key string) bool {
	_, known := s.first[key]
	return !known && !isOwn(key)
}

// page is how many keys one answer has at most.
const page = 5000

// list returns all keys, in their order.
func (s *storage) list(ctx context.Context, keysOnly bool) ([]entry, error) {
	var all []entry
	for from := []byte{0}; ; {
		var answer struct {
			Kvs  []entry `json:"kvs"`
			More bool    `json:"more"`
		}
		err := s.call(ctx, "range", map[string]any{"key": from, "range_end": []byte{0}, "keys_only": keysOnly, "limit": page}, &answer)
		if err != nil {
			return nil, err
		}
		all = append(all, answer.Kvs...)
		if !answer.More || len(answer.Kvs) == 0 {
			return all, nil
		}
		from = append(slices.Clone(all[len(all)-1].Key), 0)
	}
}

// call makes one call of etcd's gateway for JSON.
func (s *storage) call(ctx context.Context, verb string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return fmt.Errorf("%s in etcd: %w", verb, err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url+"/v3/kv/"+verb, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("%s in etcd: %w", verb, err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("%s in etcd: %w", verb, err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	switch {
	case err != nil:
		return fmt.Errorf("%s in etcd: %w", verb, err)
	case resp.StatusCode != http.StatusOK:
		return fmt.Errorf("%s in etcd: %s: %s", verb, resp.Status, answer)
	case out == nil:
		return nil
	}
	if err := json.Unmarshal(answer, out); err != nil {
		return fmt.Errorf("%s in etcd: read the answer: %w", verb, err)
	}
	return nil
}
