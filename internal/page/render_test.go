package page

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/clock"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/internal/testenv/objects"
)

// hostile is text that would do something if it was taken for HTML.
const hostile = `</script><script>alert(1)</script><img src=x onerror=alert(1)>"'` + "`"

// TestEscapes: whatever objects say is text.
func TestEscapes(t *testing.T) {
	t.Parallel()
	n := objects.NetNamespace("shop", 1, "192.168.7.200", hostile)
	n.Annotations = map[string]string{v1.AnnotationMode: hostile}
	n.Status.Conditions = []metav1.Condition{{Type: v1.ConditionEgressReady, Status: hostile, Reason: hostile, Message: hostile}}
	h := host("node1", "192.168.7.11", "192.168.7.200", hostile)
	h.Status.Agent.Version, h.Status.Agent.Kernel, h.Status.Agent.Backend = hostile, hostile, hostile
	h.Status.HostIPs = []string{hostile}
	h.Status.EgressIPs[0] = v1.ClaimStatus{IP: "192.168.7.200", Reason: hostile, Message: hostile}
	says(&h, v1.ConditionWarnings, metav1.ConditionTrue, hostile, hostile)
	says(&h, hostile, metav1.ConditionTrue, hostile, hostile)
	source := &played{in: Input{}}
	source.in.NetNamespaces, source.in.HostSubnets = []v1.NetNamespace{n}, []v1.HostSubnet{h}
	p := newTestPage(t, source, clock.RealClock{})
	for path, shown := range map[string]bool{
		"/page/": true, "/page/?q=" + url.QueryEscape(hostile): true, "/page/namespaces/shop": true, "/page/hosts/node1": true,
		"/page/namespaces/" + url.PathEscape(hostile): true,
	} {
		text, err := io.ReadAll(p.get(t, http.MethodGet, path).Body)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(text), "<script>alert") || strings.Contains(string(text), "<img src=x") {
			t.Errorf("%s has HTML of an object", path)
		}
		if strings.Contains(string(text), "&lt;script&gt;alert(1)") != shown {
			t.Errorf("%s does not show the text", path)
		}
	}
}

// TestOverviewWithoutScript: all rows can be reached by links, worst first, each once.
func TestOverviewWithoutScript(t *testing.T) {
	t.Parallel()
	var namespaces []v1.NetNamespace
	for i := range 450 {
		namespaces = append(namespaces, objects.NetNamespace(fmt.Sprintf("n%03d", i), uint32(i+1), fmt.Sprintf("10.0.%d.%d", i/200, 1+i%200)))
	}
	namespaces = append(namespaces, objects.NetNamespace("clash-a", 901, "10.1.0.1"), objects.NetNamespace("clash-b", 902, "10.1.0.1"), objects.NetNamespace("quiet", 903))
	m := modelOf(namespaces, nil)
	seen := make(map[string]int)
	pages, query := 0, ""
	for {
		pages++
		values, err := url.ParseQuery(strings.TrimPrefix(query, "?"))
		if err != nil {
			t.Fatal(err)
		}
		page := makeOverview(frame{}, m, values)
		for i, g := range page.Groups {
			seen[g.ID]++
			if pages == 1 && i < 2 && g.Level != LevelConflict {
				t.Errorf("row %d is %s, which is %s", i, g.ID, g.Level)
			}
		}
		if page.After == "" {
			back := makeOverview(frame{}, m, must(t, page.Before))
			if len(back.Groups) != rowsAtOnce || back.Before != "?" && back.Before == "" {
				t.Errorf("the page before the last has %d rows", len(back.Groups))
			}
			break
		}
		query = page.After
	}
	if pages != 3 || len(seen) != 452 || seen["quiet"] != 0 {
		t.Errorf("%d pages have %d rows, want 3 with 452", pages, len(seen))
	}
	for query, want := range map[string]int{"?level=none": 1, "?level=conflict": 2, "?q=clash": 2, "?q=10.1.0.1+conflict": 2, "?q=quiet": 1, "?q=nobody": 0, "?level=made-up": 200} {
		if page := makeOverview(frame{}, m, must(t, query)); len(page.Groups) != want {
			t.Errorf("%s has %d rows, want %d", query, len(page.Groups), want)
		}
	}
	if page := makeOverview(frame{}, m, nil); len(page.Issues) != issuesAtOnce || page.MoreIssues != 452-issuesAtOnce {
		t.Errorf("%d issues are listed and %d more counted", len(page.Issues), page.MoreIssues)
	}
}

func must(t *testing.T, query string) url.Values {
	t.Helper()
	values, err := url.ParseQuery(strings.TrimPrefix(query, "?"))
	if err != nil {
		t.Fatal(err)
	}
	return values
}
