// Package metric makes the metrics of a component out of definitions, from which their
// documentation is generated, too: what is served and what is documented cannot differ.
package metric

import (
	"errors"
	"fmt"
	"slices"

	"github.com/prometheus/client_golang/prometheus"
)

// The types of metrics.
const (
	Counter   = "counter"
	Gauge     = "gauge"
	Histogram = "histogram"
)

// Def defines one metric.
type Def struct {
	// Name follows https://prometheus.io/docs/practices/naming: base units, and _total for
	// counters.
	Name string
	// Help is one sentence or more, for dashboards and the documentation alike.
	Help string
	// Labels are in the order in which values are given.
	Labels []Label
	// Series is how many series a process has at most, in words; empty for one, or for as
	// many as the values of its labels can be combined to.
	Series string
	// Buckets are the upper bounds of a histogram.
	Buckets []float64
	// Type is set by the method of Set that makes the metric.
	Type string
}

// Label is one label of a metric.
type Label struct {
	Name string
	// Values are all that it can have, where they are few and known.
	Values []string
	// Is describes them otherwise.
	Is string
}

// names returns those of the labels.
func (d Def) names() []string {
	names := make([]string, 0, len(d.Labels))
	for _, l := range d.Labels {
		names = append(names, l.Name)
	}
	return names
}

// Bound says how many series a process has at most.
func (d Def) Bound() string {
	if d.Series != "" {
		return d.Series
	}
	n := 1
	for _, l := range d.Labels {
		n *= len(l.Values)
	}
	return fmt.Sprint(n)
}

// Set are the metrics of one component. It is not safe for concurrent use; what it makes is.
type Set struct {
	defs       []Def
	collectors []prometheus.Collector
}

// Defs returns the definitions of all metrics, in order of name.
func (s *Set) Defs() []Def {
	defs := slices.Clone(s.defs)
	slices.SortFunc(defs, func(a, b Def) int {
		if a.Name < b.Name {
			return -1
		}
		return 1
	})
	return defs
}

// Register registers all metrics with r until unregister is called, so that the component can
// run again in the same process.
func (s *Set) Register(r prometheus.Registerer) (unregister func(), err error) {
	var added []prometheus.Collector
	var errs []error
	for _, c := range s.collectors {
		if err := r.Register(c); err != nil {
			errs = append(errs, fmt.Errorf("register a metric: %w", err))
			continue
		}
		added = append(added, c)
	}
	return func() {
		for _, c := range added {
			r.Unregister(c)
		}
	}, errors.Join(errs...)
}

func (s *Set) add(d Def, kind string, c prometheus.Collector) {
	d.Type = kind
	s.defs = append(s.defs, d)
	s.collectors = append(s.collectors, c)
}

// Counter makes a counter without labels.
func (s *Set) Counter(d Def) prometheus.Counter {
	c := prometheus.NewCounter(prometheus.CounterOpts{Name: d.Name, Help: d.Help})
	s.add(d, Counter, c)
	return c
}

// Counters makes a counter with labels. If all values of all labels are known, each series is
// there from the start: a rate over a series that begins with its first event misses that.
func (s *Set) Counters(d Def) *prometheus.CounterVec {
	c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: d.Name, Help: d.Help}, d.names())
	for _, values := range combine(d.Labels) {
		c.WithLabelValues(values...)
	}
	s.add(d, Counter, c)
	return c
}

// Gauge makes a gauge without labels.
func (s *Set) Gauge(d Def) prometheus.Gauge {
	g := prometheus.NewGauge(prometheus.GaugeOpts{Name: d.Name, Help: d.Help})
	s.add(d, Gauge, g)
	return g
}

// Gauges makes a gauge with labels.
func (s *Set) Gauges(d Def) *prometheus.GaugeVec {
	g := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: d.Name, Help: d.Help}, d.names())
	s.add(d, Gauge, g)
	return g
}

// Histogram makes a histogram without labels.
func (s *Set) Histogram(d Def) prometheus.Histogram {
	h := prometheus.NewHistogram(prometheus.HistogramOpts{Name: d.Name, Help: d.Help, Buckets: d.Buckets})
	s.add(d, Histogram, h)
	return h
}

// Sampled makes counters that others count: sample is called for each scrape, and passes the
// values of each counter, in the order of the definitions, with those of its labels. It must be
// safe for concurrent use.
func (s *Set) Sampled(defs []Def, sample func(is func(which int, value float64, labels ...string))) {
	c := &sampled{sample: sample}
	for _, d := range defs {
		c.descs = append(c.descs, prometheus.NewDesc(d.Name, d.Help, d.names(), nil))
		d.Type = Counter
		s.defs = append(s.defs, d)
	}
	s.collectors = append(s.collectors, c)
}

// sampled are counters whose values are asked for.
type sampled struct {
	descs  []*prometheus.Desc
	sample func(func(int, float64, ...string))
}

func (s *sampled) Describe(out chan<- *prometheus.Desc) {
	for _, d := range s.descs {
		out <- d
	}
}

func (s *sampled) Collect(out chan<- prometheus.Metric) {
	s.sample(func(which int, value float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(s.descs[which], prometheus.CounterValue, value, labels...)
	})
}

// combine returns all combinations of the values of labels; none if those of a label are not
// known.
func combine(labels []Label) [][]string {
	all := [][]string{nil}
	for _, l := range labels {
		var longer [][]string
		for _, values := range all {
			for _, v := range l.Values {
				longer = append(longer, append(slices.Clone(values), v))
			}
		}
		all = longer
	}
	return all
}
