// Command traffic is the test bed's traffic client and server: it runs in every
// test pod, and as the server on the bastion.
//
//	traffic pause               hold a pod's namespaces
//	traffic serve [-log FILE] [-name NAME] ADDRESS
//	                            serve HTTP on ADDRESS, UDP echo on the same
//	                            port, TCP echo on the next one; FILE gets an
//	                            access log in common log format
//	traffic get URL             print the body of the answer
//	traffic post -size N URL    send N bytes, print the answer
//	traffic udp [-size N] [-df] ADDRESS:PORT
//	traffic ping [-size N] [-df] ADDRESS
//	traffic watch [-every D] [-for D] [-id ID] http://... | tcp://... | udp://...
//	                            send a request at each interval, each over a
//	                            new connection, and print a JSON line for each
//	traffic stream [-every D] [-for D] ADDRESS:PORT
//	                            send numbered lines over one connection to a
//	                            TCP echo, and print a JSON line for each
//	traffic idle [-for D] ADDRESS:PORT
//	                            have one line answered by a TCP echo, wait for
//	                            more, and print a JSON line: when and how the
//	                            connection ended
//	traffic chatter [-every D] [-id ID] ADDRESS:PORT
//	                            send to a server of "serve" without end: new
//	                            connections, datagrams, and one stream
//	traffic arp [-every D] IP... ask by ARP on eth0 who has each address
//	traffic mtu DEVICE          print the MTU of a device
//	traffic api PATH            ask the API server as the pod's service account
//
// Every client takes -timeout. The server's answer names the address that it
// saw: the source that the outside world sees.
package main

import (
	"context"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"time"

	"golang.org/x/sys/unix"
)

func main() { os.Exit(run(os.Args[1:])) }

// options are the flags of all subcommands.
type options struct {
	log     string
	name    string
	timeout time.Duration
	every   time.Duration
	length  time.Duration
	size    int
	df      bool
	id      string
}

func run(args []string) int {
	if len(args) == 0 {
		fmt.Fprintln(os.Stderr, "usage: traffic pause|serve|get|post|udp|ping|watch|stream|idle|chatter|arp|mtu|api ...")
		return 2
	}
	name := args[0]
	var o options
	flags := flag.NewFlagSet("traffic "+name, flag.ContinueOnError)
	flags.StringVar(&o.log, "log", "", "access log")
	flags.StringVar(&o.name, "name", "", "what the server calls itself; its host name by default")
	flags.DurationVar(&o.timeout, "timeout", 5*time.Second, "how long to wait for an answer")
	flags.DurationVar(&o.every, "every", 20*time.Millisecond, "interval")
	flags.DurationVar(&o.length, "for", 0, "how long to go on; 0 until SIGTERM")
	flags.IntVar(&o.size, "size", 0, "bytes of payload")
	flags.BoolVar(&o.df, "df", false, "forbid fragmentation")
	flags.StringVar(&o.id, "id", "p", "begins the id of each request")
	if err := flags.Parse(args[1:]); err != nil {
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	defer stop()
	run, known := commands()[name]
	if !known {
		fmt.Fprintf(os.Stderr, "traffic: no command %q\n", name)
		return 1
	}
	if err := run(ctx, flags.Args(), o); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// commands are the subcommands by name.
func commands() map[string]func(ctx context.Context, args []string, o options) error {
	one := func(do func(ctx context.Context, target string, o options) error) func(context.Context, []string, options) error {
		return func(ctx context.Context, args []string, o options) error {
			target := ""
			if len(args) > 0 {
				target = args[0]
			}
			return do(ctx, target, o)
		}
	}
	brief := func(do func(target string, o options) error) func(context.Context, []string, options) error {
		return one(func(_ context.Context, target string, o options) error { return do(target, o) })
	}
	return map[string]func(context.Context, []string, options) error{
		"pause":   one(func(ctx context.Context, _ string, _ options) error { pause(ctx); return nil }),
		"serve":   one(serve),
		"get":     one(get),
		"post":    one(post),
		"udp":     brief(udp),
		"ping":    brief(ping),
		"watch":   one(watch),
		"stream":  one(stream),
		"idle":    brief(idle),
		"chatter": chatter,
		"arp":     whoHas,
		"mtu":     brief(mtu),
		"api":     one(api),
	}
}

// mtu prints how many bytes a packet may have on a device.
func mtu(device string, _ options) error {
	link, err := net.InterfaceByName(device)
	if err != nil {
		return fmt.Errorf("MTU of %s: %w", device, err)
	}
	fmt.Println(link.MTU)
	return nil
}

// pause waits for the end, and reaps orphans: it is the first process of pods that
// share their PID namespace.
func pause(ctx context.Context) {
	child := make(chan os.Signal, 8)
	signal.Notify(child, unix.SIGCHLD)
	for {
		select {
		case <-ctx.Done():
			return
		case <-child:
		}
		for {
			if pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil); pid <= 0 || err != nil {
				break
			}
		}
	}
}
