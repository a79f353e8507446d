// Package figures holds what benchmarks measured: values by way and round, and the ratios of those
// of one round.
//
// Concurrency: nothing here is for several goroutines at once.
package figures

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Report is one run.
type Report struct {
	Machine Machine
	Began   time.Time
	Series  []Series
}

// Machine is what ran it.
type Machine struct {
	Kernel, Processor string
	Processors        int
	MemoryMiB         uint64
	// Load is the load average of the last minute before the run.
	Load string
}

// Series are the values of one measurement, by way and round.
type Series struct {
	Name, Unit   string
	LessIsBetter bool
	Values       map[string][]float64
	Ratios       []Ratio
}

// Ratio compares two ways: the quotient of their values in the same round, so that more is better.
// Low and High are its quartiles.
type Ratio struct {
	Way, Beside       string
	Median, Low, High float64
}

// RatioOf compares a way of a series with another one.
func RatioOf(s Series, way, beside string) Ratio {
	var ratios []float64
	for i, value := range s.Values[way] {
		r := value / s.Values[beside][i]
		if s.LessIsBetter {
			r = 1 / r
		}
		ratios = append(ratios, r)
	}
	return Ratio{Way: way, Beside: beside, Median: Quantile(ratios, 0.5), Low: Quantile(ratios, 0.25), High: Quantile(ratios, 0.75)}
}

// Quantile returns a quantile of values, which may be in any order: 0 is the least, 1 the greatest
// of them. It lies between two values where it must.
func Quantile(values []float64, q float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	if len(sorted) == 0 {
		return 0
	}
	at := q * float64(len(sorted)-1)
	below := int(at)
	if below == len(sorted)-1 {
		return sorted[below]
	}
	return sorted[below] + (at-float64(below))*(sorted[below+1]-sorted[below])
}

// Ways returns the ways of a series, in the order of their names.
func (s Series) Ways() []string {
	var ways []string
	for way := range s.Values {
		ways = append(ways, way)
	}
	slices.Sort(ways)
	return ways
}

// Print writes a series for a reader: medians, and ratios with their quartiles.
func (s Series) Print(to io.Writer) {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s, %s\n", s.Name, s.Unit)
	for _, way := range s.Ways() {
		fmt.Fprintf(&b, "  %-18s %12.4g", way, Quantile(s.Values[way], 0.5))
		for _, r := range s.Ratios {
			if r.Way == way {
				fmt.Fprintf(&b, "   %.3f of %s (%.3f to %.3f)", r.Median, r.Beside, r.Low, r.High)
			}
		}
		b.WriteByte('\n')
	}
	_, _ = b.WriteTo(to)
}

// ThisMachine returns what is known of this machine.
func ThisMachine() (Machine, error) {
	m := Machine{Processors: runtime.NumCPU()}
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return m, fmt.Errorf("ask for the kernel's release: %w", err)
	}
	m.Kernel = unix.ByteSliceToString(u.Release[:])
	var i unix.Sysinfo_t
	if err := unix.Sysinfo(&i); err != nil {
		return m, fmt.Errorf("ask for the memory: %w", err)
	}
	m.MemoryMiB = i.Totalram * uint64(i.Unit) >> 20
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return m, fmt.Errorf("ask for the processor: %w", err)
	}
	for line := range strings.Lines(string(info)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
			m.Processor = strings.TrimSpace(value)
		}
	}
	load, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return m, fmt.Errorf("ask for the load: %w", err)
	}
	m.Load, _, _ = strings.Cut(string(load), " ")
	return m, nil
}
