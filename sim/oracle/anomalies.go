package oracle

import (
	"slices"
	"time"
)

// grace is how many samples after an anomaly an alarm still belongs to it: its end is a jump too.
const grace = 16

// Alerts says how well alerts match the labels; nil parts had nothing to count.
type Alerts struct {
	TruePositive  int      `json:"true_positive"`
	FalsePositive int      `json:"false_positive"`
	FalseNegative int      `json:"false_negative"`
	Precision     *float64 `json:"precision"`
	Recall        *float64 `json:"recall"`
	DelayMSP50    *float64 `json:"delay_ms_p50"`
	// ByKind is recall by kind of anomaly: found and missed.
	ByKind map[string]Found `json:"by_kind,omitempty"`
}

// Found counts the anomalies of a kind.
type Found struct {
	Found  int `json:"found"`
	Missed int `json:"missed"`
}

// judgeAlerts matches alarms with labels: a label is found by the first alarm on its metric from its
// first sample to grace samples behind its last; an alarm inside no label is false. A label that the
// run's end cut off counts only when found. interval is the
// distance of two samples; 0 where there is none, and then no delay.
func judgeAlerts(devices []Device, alarms []alarm, interval time.Duration) Alerts {
	type key struct{ device, metric string }
	byMetric := make(map[key][]uint64)
	for _, a := range alarms {
		k := key{a.device, a.metric}
		byMetric[k] = append(byMetric[k], a.seq)
	}
	out := Alerts{ByKind: make(map[string]Found)}
	claimed := 0
	var delays []float64
	for _, d := range devices {
		for _, l := range d.Labels {
			hits := 0
			first := uint64(0)
			for _, seq := range byMetric[key{d.ID, l.Metric}] {
				if seq >= l.First && seq <= l.Last+grace {
					if hits++; hits == 1 || seq < first {
						first = seq
					}
				}
			}
			claimed += hits
			kind := out.ByKind[l.Kind.String()]
			switch {
			case hits > 0:
				out.TruePositive++
				kind.Found++
				delays = append(delays, float64(first-l.First)*float64(interval)/float64(time.Millisecond))
			case l.Last <= d.Sum.Samples:
				out.FalseNegative++
				kind.Missed++
			}
			out.ByKind[l.Kind.String()] = kind
		}
	}
	out.FalsePositive = len(alarms) - claimed
	out.Precision = ratio(out.TruePositive, out.TruePositive+out.FalsePositive)
	out.Recall = ratio(out.TruePositive, out.TruePositive+out.FalseNegative)
	if len(delays) > 0 && interval > 0 {
		slices.Sort(delays)
		out.DelayMSP50 = &delays[len(delays)/2]
	}
	return out
}

func ratio(part, whole int) *float64 {
	if whole == 0 {
		return nil
	}
	r := float64(part) / float64(whole)
	return &r
}
