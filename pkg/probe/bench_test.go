package probe

import (
	"bufio"
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
)

// crowdPort tells the test binary to be a crowd of responders, in a process of
// its own: their cost is not the prober's.
const crowdPort = "PROBE_TEST_CROWD_PORT"

func TestMain(m *testing.M) {
	if port := os.Getenv(crowdPort); port != "" {
		if err := crowd(port); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

const crowdSize = 1000

func crowdHost(i int) Target {
	return Target{Name: fmt.Sprint("node", i), Addr: netip.AddrFrom4([4]byte{127, 1, byte(i >> 8), byte(i)})}
}

// crowd answers for all its hosts until standard input ends, and then says what
// that took of the processor.
func crowd(port string) error {
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	var all sync.WaitGroup
	for i := range crowdSize {
		h := crowdHost(i)
		r, err := NewResponder(ResponderConfig{Host: h.Name, Addr: h.Addr, Port: uint16(number)})
		if err != nil {
			return err
		}
		r.SetSources([]netip.Addr{loopback(1)})
		all.Go(func() { _ = r.Run(ctx) })
	}
	_, _ = bufio.NewReader(os.Stdin).ReadString('\n')
	fmt.Println(processorTime())
	stop()
	all.Wait()
	return nil
}

// processorTime is what this process has used, in user and system mode.
func processorTime() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// One operation is one interval (200 ms) in which a thousand hosts are probed.
// cpu-ms/s is the prober's processor time per second.
func BenchmarkProberOfThousandHosts(b *testing.B) {
	port := freePort(b)
	responders := exec.Command(os.Args[0])
	responders.Env = append(os.Environ(), crowdPort+"="+strconv.Itoa(int(port)))
	responders.Stderr = os.Stderr
	in, err := responders.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	var out strings.Builder
	responders.Stdout = &out
	if err := responders.Start(); err != nil {
		b.Fatal(err)
	}
	defer func() {
		_ = in.Close()
		_ = responders.Wait()
		b.Logf("the crowd of %d responders used %s of the processor in all", crowdSize, strings.TrimSpace(out.String()))
	}()

	p, err := NewProber(ProberConfig{Config: DefaultConfig(), Source: loopback(1), Port: port})
	if err != nil {
		b.Fatal(err)
	}
	var targets []Target
	for i := range crowdSize {
		targets = append(targets, crowdHost(i))
	}
	if err := p.SetTargets(targets); err != nil {
		b.Fatal(err)
	}
	spawn(b, p.Run)
	testenv.Until(b, "all hosts answer", func() bool { return p.Stats().Ready > 2*crowdSize && p.View().Settled })

	interval := time.NewTicker(DefaultConfig().Interval)
	defer interval.Stop()
	<-interval.C
	began, used, before := time.Now(), processorTime(), p.Stats()
	for b.Loop() {
		<-interval.C
	}
	took, s := time.Since(began), p.Stats()
	b.ReportMetric(float64((processorTime()-used).Microseconds())/1000/took.Seconds(), "cpu-ms/s")
	b.ReportMetric(float64(s.Sent-before.Sent)/took.Seconds(), "probes/s")
	b.ReportMetric(float64(s.Missed-before.Missed), "missed")
	b.ReportMetric(float64(len(p.Offline())), "offline")
}
