package twin

import (
	"slices"
	"strings"

	"github.com/doppel-iot/doppel/actors/baseline"
)

// Latest is the latest value of one metric, as AppendMetrics gives it but without the window, which
// costs more than all the rest.
type Latest struct {
	Value    float64
	Time     int64
	Z, Score float64 // NaN below min_samples
}

// Latest is the latest value of the metric of that name, if it has one.
func (t *Twin) Latest(name string) (Latest, bool) {
	m := t.known(name)
	if m == nil {
		return Latest{}, false
	}
	return Latest{Value: m.value, Time: m.time, Z: m.z, Score: m.score}, true
}

// Window is what the window of a metric says before its latest sample.
func (t *Twin) Window(name string) baseline.Stats {
	m := t.known(name)
	if m == nil {
		return baseline.Stats{}
	}
	c := baseline.Default()
	return m.base.Before(&c)
}

// KnownMetrics counts the metrics that have a value.
func (t *Twin) KnownMetrics() int {
	n := 0
	for i := range t.metrics {
		if t.metrics[i].known {
			n++
		}
	}
	return n
}

func (t *Twin) known(name string) *metric {
	i, ok := slices.BinarySearchFunc(t.metrics, name, func(m metric, name string) int { return strings.Compare(m.name, name) })
	if !ok || !t.metrics[i].known {
		return nil
	}
	return &t.metrics[i]
}

// ReportedMember is the JSON text of one top-level reported property, which the twin goes on owning;
// nil if there is none.
func (t *Twin) ReportedMember(key string) []byte {
	if t.props == nil {
		return nil
	}
	i, ok := t.props.search(key)
	if !ok || t.props.list[i].text == nil {
		return nil
	}
	return t.props.list[i].text[t.props.list[i].value:]
}

// Tag is the value of a tag.
func (t *Twin) Tag(key string) ([]byte, bool) {
	value, ok := t.Tags()[key]
	return []byte(value), ok
}
