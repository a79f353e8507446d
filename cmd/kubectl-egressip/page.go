package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// renewAfter is when another token is asked for: before the one of the reader ends.
const renewAfter = tokenFor - 2*time.Minute

// pageCommand returns the command that opens the controller's page.
func pageCommand(out, errOut io.Writer, config clientcmd.ClientConfig) *cobra.Command {
	var port uint16
	var noBrowser bool
	cmd := &cobra.Command{
		Use:   "page",
		Short: "Open the controller's page: who leaves where, what is wrong first, and why",
		Long: `Open the controller's page in a browser, until it is interrupted: who leaves where, as it changes, what is
wrong first, and for each namespace why. Nothing can be changed there.

The controller must serve it: controller.page.enabled=true in the chart. The page comes through the API
server, as with kubectl port-forward, to 127.0.0.1 of this machine; the command adds a token, so that the
browser needs none. The address that it prints has a secret part: who has that, and may connect to this
machine's 127.0.0.1, sees the page.`,
		Example: `  kubectl egressip page
  kubectl egressip page --port 8443 --no-browser`,
		Args: cobra.NoArgs,
	}
	cmd.Flags().Uint16Var(&port, "port", 0, "`port` of 127.0.0.1 to listen on; any that is free by default")
	cmd.Flags().BoolVar(&noBrowser, "no-browser", false, "print the address, and open no browser")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := newClient(config)
		if err != nil {
			return err
		}
		r, err := newReacher(config)
		if err != nil {
			return err
		}
		open := openBrowser
		if noBrowser {
			open = func(string) error { return nil }
		}
		return servePage(cmd.Context(), out, errOut, newPageWay(c, r), port, open)
	}
	return cmd
}

// servePage serves the page at a port of 127.0.0.1 until ctx ends.
func servePage(ctx context.Context, out, errOut io.Writer, way *pageWay, port uint16, open func(address string) error) error {
	if err := way.try(ctx); err != nil {
		return err
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp4", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return fmt.Errorf("%w: choose another --port, or leave it out", err)
	}
	proxy := newPageProxy(l.Addr().String(), way)
	server := &http.Server{
		Handler: proxy, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 64 << 10,
		ErrorLog:    log.New(io.Discard, "", 0), // of browsers that go
		BaseContext: func(net.Listener) context.Context { return ctx },
	}
	defer context.AfterFunc(ctx, func() { server.Close() })()
	fmt.Fprintf(out, "%s\nis the page until you press Ctrl-C. Keep the address to yourself.\n", proxy.address())
	if err := open(proxy.onceAddress()); err != nil {
		fmt.Fprintf(errOut, "No browser was opened: %v. Open the address above.\n", err)
	}
	err = server.Serve(l)
	way.transport.CloseIdleConnections()
	if errors.Is(err, http.ErrServerClosed) && ctx.Err() != nil {
		return nil // an interruption is how it ends
	}
	return fmt.Errorf("serve the page: %w", err)
}

// openBrowser opens an address in the user's browser, which goes on when this command ends.
func openBrowser(address string) error {
	name, args := "xdg-open", []string{address}
	switch runtime.GOOS {
	case "darwin":
		name = "open"
	case "windows":
		name, args = "rundll32", []string{"url.dll,FileProtocolHandler", address}
	default:
		if os.Getenv("DISPLAY") == "" && os.Getenv("WAYLAND_DISPLAY") == "" {
			return errors.New("there is no display")
		}
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return err
	}
	browser := exec.Command(path, args...) //nolint:noctx // it outlives this command
	apart(browser)
	if err := browser.Start(); err != nil {
		return err
	}
	return browser.Process.Release()
}

// pageWay is the way to the pods of the controller. It is safe for concurrent use.
type pageWay struct {
	client    client.Reader
	transport *http.Transport
	now       func() time.Time

	mu    sync.Mutex
	reach *reacher
	// issued is when the tokens were asked for.
	issued time.Time
	// namespace is that of the pod that was reached last, for its token.
	namespace string
	// silent are pods that could not be reached, and when.
	silent map[string]time.Time
}

// controllerPods are the pods that may serve the page, the best first: those that run and are ready,
// and were not found silent a short while ago. Every replica serves it.
func (w *pageWay) controllerPods(ctx context.Context) ([]corev1.Pod, error) {
	var list corev1.PodList
	if err := w.client.List(ctx, &list, client.MatchingLabels{labelName: ourName, labelComponent: componentController}); err != nil {
		return nil, fmt.Errorf("list the controller's pods: %w", err)
	}
	pods := slices.DeleteFunc(list.Items, func(p corev1.Pod) bool {
		return p.Status.Phase != corev1.PodRunning || p.DeletionTimestamp != nil
	})
	if len(pods) == 0 {
		return nil, fmt.Errorf("no pod with labels %s=%s and %s=%s runs: is the operator installed, and does its Deployment run? See kubectl egressip check",
			labelName, ourName, labelComponent, componentController)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	worse := func(p corev1.Pod) int {
		n := 0
		if notReady(&p) != "" {
			n = 1
		}
		if at, ok := w.silent[p.Name]; ok && w.now().Sub(at) < time.Minute {
			n += 2
		}
		return n
	}
	slices.SortStableFunc(pods, func(a, b corev1.Pod) int {
		if n := worse(a) - worse(b); n != 0 {
			return n
		}
		return strings.Compare(a.Name, b.Name)
	})
	return pods, nil
}
