package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// get prints the body of an answer.
func get(ctx context.Context, url string, o options) error {
	return do(ctx, o, nil, http.MethodGet, url, nil, nil, func(r *http.Response) error {
		_, err := io.Copy(os.Stdout, r.Body)
		return err
	})
}

// post sends o.size bytes and counts what comes back.
func post(ctx context.Context, url string, o options) error {
	body := strings.NewReader(strings.Repeat("y", o.size))
	return do(ctx, o, nil, http.MethodPost, url, body, nil, func(r *http.Response) error {
		n, err := io.Copy(io.Discard, r.Body)
		fmt.Printf("saw %s, sent %d bytes, received %d bytes\n", r.Header.Get(sawHeader), o.size, n)
		return err
	})
}

// api asks the API server as the pod's service account.
func api(ctx context.Context, path string, o options) error {
	const dir = "/var/run/secrets/kubernetes.io/serviceaccount/"
	token, err := os.ReadFile(dir + "token")
	if err != nil {
		return err
	}
	ca, err := os.ReadFile(dir + "ca.crt")
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	url := "https://" + net.JoinHostPort(os.Getenv("KUBERNETES_SERVICE_HOST"), os.Getenv("KUBERNETES_SERVICE_PORT")) + path
	header := http.Header{"Authorization": {"Bearer " + string(token)}}
	return do(ctx, o, &tls.Config{RootCAs: roots}, http.MethodGet, url, nil, header, func(r *http.Response) error {
		_, err := io.Copy(os.Stdout, r.Body)
		return err
	})
}

// do makes a request and uses its answer. All packets of its connection have left when it
// returns: what watches the network from then on sees none of them.
func do(ctx context.Context, o options, c *tls.Config, method, url string, body io.Reader, h http.Header, use func(*http.Response) error) error {
	request, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		return err
	}
	maps.Copy(request.Header, h)
	request.Close = true // the server ends the connection
	ended := make(chan struct{})
	end := sync.OnceFunc(func() { close(ended) })
	transport := &http.Transport{TLSClientConfig: c, DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return &patient{Conn: conn, ended: end}, nil
	}}
	response, err := (&http.Client{Timeout: o.timeout, Transport: transport}).Do(request)
	if err != nil {
		return err
	}
	err = use(response)
	response.Body.Close()
	<-ended
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s %s: %s", method, url, response.Status)
	}
	return nil
}

// patient is a connection that waits for the other side's end before it closes. A process
// that ends first leaves the last packet, which acknowledges that, to the kernel.
type patient struct {
	net.Conn
	ended func()
}

// patience is how long a patient connection waits at most.
const patience = time.Second

// Close closes the connection.
func (p *patient) Close() error {
	defer p.ended()
	if p.SetReadDeadline(time.Now().Add(patience)) == nil {
		_, _ = io.Copy(io.Discard, p.Conn) // it has been used; how it ends does not matter
	}
	return p.Conn.Close()
}

// dialer has its sockets forbid fragmentation, if asked to.
func dialer(o options) *net.Dialer {
	d := &net.Dialer{Timeout: o.timeout}
	if o.df {
		d.Control = func(network, _ string, c syscall.RawConn) error {
			level, option := unix.IPPROTO_IP, unix.IP_MTU_DISCOVER
			if strings.HasSuffix(network, "6") || strings.HasPrefix(network, "ip6") {
				level, option = unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER
			}
			var inner error
			err := c.Control(func(fd uintptr) {
				inner = unix.SetsockoptInt(int(fd), level, option, unix.IP_PMTUDISC_DO)
			})
			return errors.Join(err, inner)
		}
	}
	return d
}

// udp sends a datagram and prints the answer; it does not send again.
func udp(address string, o options) error {
	answer, err := askUDP(address, o)
	if err != nil {
		return err
	}
	fmt.Print(answer)
	return nil
}

func askUDP(address string, o options) (string, error) {
	conn, err := dialer(o).Dial("udp", address)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	payload := o.id + " "
	payload += strings.Repeat("z", max(0, o.size-len(payload)))
	if err := conn.SetDeadline(time.Now().Add(o.timeout)); err != nil {
		return "", err
	}
	if _, err := conn.Write([]byte(payload)); err != nil {
		return "", err
	}
	buffer := make([]byte, 1<<16)
	n, err := conn.Read(buffer)
	return string(buffer[:n]), err
}

// ping sends an ICMP echo request of o.size bytes of data and waits for its
// reply, or for the error that came instead.
func ping(address string, o options) error {
	// Echo request and reply of the family; the kernel itself fills in ICMPv6's checksum.
	network, ask, answer := "ip4:icmp", byte(8), byte(0)
	if ip, err := netip.ParseAddr(address); err == nil && ip.Is6() {
		network, ask, answer = "ip6:ipv6-icmp", 128, 129
	}
	conn, err := dialer(o).Dial(network, address)
	if err != nil {
		return err
	}
	defer conn.Close()
	const header = 8
	request := make([]byte, header+o.size)
	request[0] = ask
	id := uint16(os.Getpid()) ^ uint16(time.Now().UnixNano())
	request[4], request[5] = byte(id>>8), byte(id)
	sum := checksum(request)
	request[2], request[3] = byte(sum>>8), byte(sum)
	start := time.Now()
	if err := conn.SetDeadline(start.Add(o.timeout)); err != nil {
		return err
	}
	if _, err := conn.Write(request); err != nil {
		return err
	}
	packets, ok := conn.(net.PacketConn)
	if !ok {
		return fmt.Errorf("ping %s: no packet socket", address)
	}
	buffer := make([]byte, 1<<16)
	for {
		// ReadFrom, unlike Read, takes the IP header off.
		n, _, err := packets.ReadFrom(buffer)
		if err != nil {
			return err
		}
		// Every ICMP message for this address comes to every raw socket.
		if n >= header && buffer[0] == answer && buffer[4] == byte(id>>8) && buffer[5] == byte(id) {
			fmt.Printf("reply from %s, %d bytes, %s\n", conn.RemoteAddr(), n-header, time.Since(start).Round(10*time.Microsecond))
			return nil
		}
	}
}

// checksum is the Internet checksum of RFC 1071.
func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i < len(b); i += 2 {
		word := uint32(b[i]) << 8
		if i+1 < len(b) {
			word |= uint32(b[i+1])
		}
		sum += word
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
