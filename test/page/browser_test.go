package page_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	cdplog "github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/go-logr/logr/testr"
	"k8s.io/utils/clock"

	served "github.com/egressip-operator/egressip-operator/internal/page"
	"github.com/egressip-operator/egressip-operator/internal/testenv"
)

// browserVariable makes the tests fail where there is no browser.
const browserVariable = "EGRESSIP_TEST_BROWSER"

// patience is how long a step in the browser may take.
const patience = 30 * time.Second

// chromium is the browser's path. Without one the test is skipped, or fails where one is required.
func chromium(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("chromium")
	switch {
	case err == nil:
		return path
	case os.Getenv(browserVariable) != "":
		t.Fatalf("%s is set, and chromium is not installed: apt-get install chromium", browserVariable)
	default:
		t.Skip("chromium is not installed: apt-get install chromium, or make page-test")
	}
	return ""
}

// tab is a tab of a browser.
type tab struct {
	t   *testing.T
	ctx context.Context

	mu sync.Mutex
	// said are errors and warnings of the console.
	said []string
}

// browse starts a browser that ends with the test, with one tab.
func browse(t *testing.T, width, height int) *tab {
	t.Helper()
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(chromium(t)), chromedp.WindowSize(width, height),
		// Root may not use the sandbox. What is loaded is our own page alone, and nothing can be reached but the loopback.
		chromedp.NoSandbox, chromedp.ProxyServer("127.0.0.1:9"), chromedp.Flag("proxy-bypass-list", "127.0.0.1"),
		chromedp.Flag("disable-component-update", true), chromedp.Flag("disable-dev-shm-usage", true), chromedp.UserDataDir(t.TempDir()),
		chromedp.Flag("force-prefers-reduced-motion", true), chromedp.WSURLReadTimeout(testenv.Stretch(patience)),
	)
	allocator, end := chromedp.NewExecAllocator(context.WithoutCancel(t.Context()), options...)
	t.Cleanup(end)
	ctx, closeTab := chromedp.NewContext(allocator)
	t.Cleanup(func() {
		if err := chromedp.Cancel(ctx); err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("end the browser: %v", err)
		}
		closeTab()
	})
	b := &tab{t: t, ctx: ctx}
	if err := chromedp.Do(ctx); err != nil { // it starts the browser, which ends with its context
		t.Fatalf("start the browser: %v", err)
	}
	if err := chromedp.Listen(ctx, b.listen); err != nil {
		t.Fatalf("listen to the browser: %v", err)
	}
	call(b, cdplog.Enable, cdp.Empty{})
	return b
}

// listen notes what the console says.
func (b *tab) listen(event any) {
	text := ""
	switch e := event.(type) {
	case *runtime.EventExceptionThrown:
		text = "exception: " + e.ExceptionDetails.Text
		if e.ExceptionDetails.Exception != nil {
			text += " " + e.ExceptionDetails.Exception.Description
		}
	case *cdplog.EventEntryAdded:
		if e.Entry.Level == cdplog.EntryLevelError || e.Entry.Level == cdplog.EntryLevelWarning {
			text = e.Entry.Text + " " + e.Entry.URL
		}
	case *page.EventJavascriptDialogOpening:
		text = "dialog: " + e.Message
	}
	if text != "" {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.said = append(b.said, text)
	}
}

// call sends a command of the protocol.
func call[P, R any](b *tab, command cdp.Command[P, R], parameters P) (result R) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, testenv.Stretch(patience))
	defer cancel()
	result, err := chromedp.Call(ctx, command, parameters)
	if err != nil {
		b.t.Fatalf("%s: %v", command.Method, err)
	}
	return result
}

// do takes steps.
func (b *tab) do(steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, testenv.Stretch(patience))
	defer cancel()
	if err := chromedp.Do(ctx, steps...); err != nil {
		b.t.Fatalf("in the browser: %v", err)
	}
}

// open opens an address and waits until it is live.
func (b *tab) open(address string) {
	b.t.Helper()
	b.do(chromedp.Navigate(address))
	b.until(`document.body.dataset.live === "yes" && document.getElementById("live").classList.contains("on")`)
}

// until waits until an expression is true.
func (b *tab) until(expression string) {
	b.t.Helper()
	testenv.Eventually(b.t, func(ctx context.Context) string {
		within, cancel := context.WithCancel(b.ctx)
		defer cancel()
		defer context.AfterFunc(ctx, cancel)()
		is, err := chromedp.Run(within, chromedp.Evaluate[bool]("!!("+expression+")")) //nolint:contextcheck // the tab is found by its own context
		switch {
		case err != nil:
			return fmt.Sprintf("%s: %v", expression, err)
		case !is:
			return expression + " is not true"
		}
		return ""
	})
}

// evaluate returns what an expression is.
func evaluate[T any](b *tab, expression string) (value T) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, testenv.Stretch(patience))
	defer cancel()
	value, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression))
	if err != nil {
		b.t.Fatalf("%s: %v", expression, err)
	}
	return value
}

// text is what an element shows.
func (b *tab) text(selector string) string {
	b.t.Helper()
	return evaluate[string](b, `(document.querySelector(`+"`"+selector+"`"+`) || {innerText: "there is none"}).innerText`)
}

// quiet fails the test if the console has anything to say.
func (b *tab) quiet() {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, said := range b.said {
		b.t.Errorf("the console says: %s", said)
	}
}

// colours chooses light or dark.
func (b *tab) colours(scheme string) {
	b.t.Helper()
	call(b, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{
		{Name: "prefers-color-scheme", Value: scheme}, {Name: "prefers-reduced-motion", Value: "reduce"},
	}})
}

// serve serves a page of a world on the loopback.
func serve(t *testing.T, w *world) (address string) {
	t.Helper()
	p, err := served.New(served.Config{
		Log: testr.New(t), Clock: clock.RealClock{}, Source: w, Serving: func() string { return "served by node1, which leads" },
	})
	if err != nil {
		t.Fatal(err)
	}
	w.changed = p.Changed
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- p.Start(ctx) }()
	server := httptest.NewServer(p)
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
		server.Close()
	})
	if host, _, err := net.SplitHostPort(strings.TrimPrefix(server.URL, "http://")); err != nil || host != "127.0.0.1" {
		t.Fatalf("%s is not on the loopback", server.URL)
	}
	return server.URL + served.Path + "/"
}

// nodeCount is how many elements the page has.
func (b *tab) nodeCount() int { return evaluate[int](b, `document.querySelectorAll("*").length`) }

// screenshot writes what is seen to a file.
func (b *tab) screenshot(file string) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, testenv.Stretch(patience))
	defer cancel()
	image, err := chromedp.Run(ctx, chromedp.CaptureScreenshot())
	if err != nil {
		b.t.Fatalf("take a screenshot: %v", err)
	}
	if err := os.WriteFile(file, image, 0o644); err != nil {
		b.t.Fatal(err)
	}
}
