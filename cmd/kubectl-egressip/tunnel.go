package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/transport/spdy"
	"k8s.io/streaming/pkg/httpstream"
)

// dialPod returns a connection to a port of a pod through the API server: over a WebSocket,
// and where the API server or a proxy on the way does not take one, over SPDY, as kubectl
// port-forward does. No port of this machine is opened, where others could use the tunnel.
func dialPod(ctx context.Context, cfg *rest.Config, pod *corev1.Pod, port int32) (net.Conn, error) {
	client, err := corev1client.NewForConfig(cfg)
	if err != nil {
		return nil, err
	}
	target := client.RESTClient().Post().Resource("pods").Namespace(pod.Namespace).Name(pod.Name).SubResource("portforward").URL()
	overWebSocket, err := portforward.NewSPDYOverWebsocketDialerForStreaming(target, cfg)
	if err != nil {
		return nil, err
	}
	transport, upgrader, err := spdy.RoundTripperFor(cfg)
	if err != nil {
		return nil, err
	}
	overSPDY := spdy.NewDialerForStreaming(upgrader, &http.Client{Transport: transport}, http.MethodPost, target)
	both := portforward.NewFallbackDialerForStreaming(overWebSocket, overSPDY, func(err error) bool {
		return httpstream.IsUpgradeFailure(err) || httpstream.IsHTTPSProxyError(err)
	})
	through, err := dialWithin(ctx, both)
	if err != nil {
		return nil, fmt.Errorf("forward a port: %w (needed is the right to create pods/portforward in namespace %s, and a kubelet that the API server reaches)", err, pod.Namespace)
	}
	t, err := newTunnel(through, port)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("forward port %d: %w", port, err), through.Close())
	}
	return t, nil
}

// dialWithin dials until ctx ends, of which dialers know nothing. A connection that comes later is closed.
func dialWithin(ctx context.Context, dialer httpstream.Dialer) (httpstream.Connection, error) {
	type dialed struct {
		connection httpstream.Connection
		err        error
	}
	done := make(chan dialed)
	go func() {
		connection, _, err := dialer.Dial(portforward.PortForwardProtocolV1Name)
		select {
		case done <- dialed{connection, err}:
		case <-ctx.Done():
			if connection != nil {
				connection.Close()
			}
		}
	}()
	select {
	case d := <-done:
		return d.connection, d.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// tunnel is a connection to one port of a pod. The far end reports errors on a stream of its own.
type tunnel struct {
	data    httpstream.Stream
	through httpstream.Connection
	// failed is closed when the far end has said its error, or that there is none.
	failed chan struct{}
	said   string
	close  sync.Once
}

func newTunnel(through httpstream.Connection, port int32) (*tunnel, error) {
	headers := http.Header{}
	headers.Set(corev1.StreamType, corev1.StreamTypeError)
	headers.Set(corev1.PortHeader, strconv.Itoa(int(port)))
	headers.Set(corev1.PortForwardRequestIDHeader, "0")
	report, err := through.CreateStream(headers)
	if err != nil {
		return nil, err
	}
	if err := report.Close(); err != nil { // nothing is written to it
		return nil, err
	}
	headers.Set(corev1.StreamType, corev1.StreamTypeData)
	data, err := through.CreateStream(headers)
	if err != nil {
		return nil, err
	}
	t := &tunnel{data: data, through: through, failed: make(chan struct{})}
	go func() { // it ends with the connection
		defer close(t.failed)
		said, _ := io.ReadAll(io.LimitReader(report, 4<<10))
		if t.said = strings.TrimSpace(string(said)); t.said != "" {
			t.Close()
		}
	}()
	return t, nil
}

// explained returns the far end's reason for an error, if it gives one soon.
func (t *tunnel) explained(err error) error {
	if err == nil {
		return nil
	}
	soon := time.NewTimer(time.Second)
	defer soon.Stop()
	select {
	case <-t.failed:
	case <-soon.C:
		return err
	}
	if t.said != "" {
		return fmt.Errorf("the node says: %s", t.said)
	}
	return err
}

func (t *tunnel) Read(p []byte) (int, error) {
	n, err := t.data.Read(p)
	if n > 0 {
		return n, err
	}
	return 0, t.explained(err)
}

func (t *tunnel) Write(p []byte) (int, error) {
	n, err := t.data.Write(p)
	return n, t.explained(err)
}

// Close ends the connection, and with it all reads and writes.
func (t *tunnel) Close() (err error) {
	t.close.Do(func() { err = errors.Join(t.data.Reset(), t.through.Close()) })
	return err
}

func (*tunnel) LocalAddr() net.Addr  { return tunnelAddr{} }
func (*tunnel) RemoteAddr() net.Addr { return tunnelAddr{} }

// Streams have no deadlines: whoever uses the tunnel closes it when its time is over, as package
// net/http does.
func (*tunnel) SetDeadline(time.Time) error      { return nil }
func (*tunnel) SetReadDeadline(time.Time) error  { return nil }
func (*tunnel) SetWriteDeadline(time.Time) error { return nil }

type tunnelAddr struct{}

func (tunnelAddr) Network() string { return "portforward" }
func (tunnelAddr) String() string  { return "pod" }
