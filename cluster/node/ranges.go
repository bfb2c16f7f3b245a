package node

import (
	"errors"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"

	"github.com/doppel-iot/doppel/actors/codec"
)

var metricName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,63}$`)

// metricRanges are the settings of metric-range by metric; nil: there are none.
func (c *Config) metricRanges() (map[string]codec.Range, error) {
	if len(c.MetricRanges) == 0 {
		return nil, nil
	}
	ranges := make(map[string]codec.Range, len(c.MetricRanges))
	var errs []error
	for _, s := range c.MetricRanges {
		name, r, err := parseRange(s)
		if _, twice := ranges[name]; err == nil && twice {
			err = fmt.Errorf("%s has a range already: keep one", name)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("metric-range: %q: %w", s, err))
			continue
		}
		ranges[name] = r
	}
	return ranges, errors.Join(errs...)
}

// parseRange reads NAME=MIN:MAX; a bound left out is none.
func parseRange(s string) (name string, r codec.Range, err error) {
	name, bounds, ok := strings.Cut(strings.TrimSpace(s), "=")
	low, high, colon := strings.Cut(bounds, ":")
	if !ok || !colon {
		return "", r, errors.New("want NAME=MIN:MAX, such as temperature=-40:125")
	}
	if name = strings.TrimSpace(name); !metricName.MatchString(name) {
		return "", r, fmt.Errorf("%q is not the name of a metric: want a letter or _, then letters, digits and _, 64 at most", name)
	}
	if r.Min, err = parseBound(low, math.Inf(-1)); err != nil {
		return "", r, err
	}
	if r.Max, err = parseBound(high, math.Inf(1)); err != nil {
		return "", r, err
	}
	switch {
	case r.Min > r.Max:
		return "", r, fmt.Errorf("%v is above %v: swap or correct them", r.Min, r.Max)
	case math.IsInf(r.Min, 0) && math.IsInf(r.Max, 0):
		return "", r, errors.New("it has no bound: give at least one, or leave the metric out")
	}
	return name, r, nil
}

func parseBound(s string, none float64) (float64, error) {
	s = strings.TrimSpace(s)
	if s == "" {
		return none, nil
	}
	v, err := strconv.ParseFloat(s, 64)
	if err != nil || math.IsNaN(v) || math.IsInf(v, 0) {
		return 0, fmt.Errorf("%q is not a number", s)
	}
	return v, nil
}

// newDecoder makes a decoder that refuses what the partitions would.
func (a *assembly) newDecoder() *codec.Decoder {
	d := codec.NewDecoder()
	d.SetRanges(a.ranges)
	return d
}
