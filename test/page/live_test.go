package page_test

import (
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"

	"github.com/go-logr/logr/testr"
	"k8s.io/utils/clock"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/internal/page"
	"github.com/egressip-operator/egressip-operator/internal/testenv/objects"
)

// TestLive: what changes is seen without a reload, on the overview and on the page of a namespace.
func TestLive(t *testing.T) {
	t.Parallel()
	w := &world{now: story()}
	address := serve(t, w)
	b := browse(t, 1200, 1000)
	b.open(address)
	b.until(`document.querySelector("[data-level='conflict'] .number").textContent === "2" && document.querySelector("#issues").innerText.includes("payments-test")`)
	w.change(func(in *page.Input) {
		in.NetNamespaces[4].EgressIPs = []string{"192.168.7.250"}
		in.NetNamespaces = append(in.NetNamespaces, objects.NetNamespace("newcomer", 400, "192.168.7.240"))
		settle(in, 0)
	})
	b.until(`document.querySelector("[data-level='conflict'] .number").textContent !== "2" && document.querySelector("#picture").innerText.includes("newcomer")`)
	w.change(func(in *page.Input) { in.NetNamespaces = in.NetNamespaces[:len(in.NetNamespaces)-1] })
	b.until(`!document.querySelector("#picture").innerText.includes("newcomer")`)

	b.open(address + "namespaces/shop")
	b.until(`document.querySelector("#verdict-title").innerText === "Traffic leaves with 192.168.7.212 by node2."`)
	w.change(func(in *page.Input) {
		condition(&in.HostSubnets[1], v1.ConditionOnline, "False", "Silent", "It does not answer.", 0)
	})
	b.until(`document.querySelector("#verdict-title").innerText === "Traffic is dropped." && document.body.innerText.includes("still says True")`)
	b.quiet()
	w.change(func(in *page.Input) { in.NetNamespaces = in.NetNamespaces[2:] })
	b.until(`document.querySelector("h1").innerText === "Not found"`)
}

// TestReconnects: a page whose controller is gone says that it is not live and of when it is, and is live again
// when another answers, which knows nothing of the first.
func TestReconnects(t *testing.T) {
	t.Parallel()
	w := &world{now: story()}
	newPage := func() http.Handler {
		p, err := page.New(page.Config{Log: testr.New(t), Clock: clock.RealClock{}, Source: w, Serving: func() string { return "served by a test" }})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	var now atomic.Pointer[http.Handler]
	first := newPage()
	now.Store(&first)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if h := now.Load(); h != nil {
			(*h).ServeHTTP(w, r)
			return
		}
		http.Error(w, "gone", http.StatusBadGateway)
	}))
	t.Cleanup(func() { server.CloseClientConnections(); server.Close() })
	b := browse(t, 1200, 1000)
	b.open(server.URL + page.Path + "/")
	now.Store(nil)
	server.CloseClientConnections()
	b.until(`document.getElementById("live").classList.contains("off") && document.getElementById("live-state").innerText.startsWith("Not live")`)
	w.change(func(in *page.Input) {
		in.NetNamespaces = append(in.NetNamespaces, objects.NetNamespace("meanwhile", 500))
	})
	second := newPage()
	now.Store(&second)
	b.until(`document.getElementById("live").classList.contains("on") && document.querySelector("[data-level='none'] .number").textContent === "3"`)
}
