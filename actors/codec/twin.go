package codec

import (
	"math"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/doppel-iot/doppel/actors/twin"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// Twin is the public form of a twin. What is not the twin's own (owner, epoch) is left
// to the caller. The caller owns the result; it shares nothing with t.
func Twin(t *twin.Twin) *doppelv1.Twin {
	c := t.Counters()
	p := &doppelv1.Twin{
		Id:              t.ID(),
		Version:         t.Version(),
		ReportedVersion: t.ReportedVersion(),
		Boot:            t.Boot(),
		Seq:             t.Seq(),
		Digest:          t.Digest(),
		SetDigest:       t.SetDigest(),
		Online:          t.Online(),
		LastSeen:        timestamp(t.LastSeen()),
		CreateTime:      timestamp(t.CreateTime()),
		Quarantined:     t.Quarantined(),
		Reported:        object(t.Reported()),
		Metrics:         metrics(t),
		Counters: &doppelv1.Counters{
			Applied:      c.Applied,
			Late:         c.Late,
			Duplicate:    c.Duplicate,
			DeadLettered: c.DeadLettered,
			Held:         c.Held,
			Gaps:         c.Gaps,
			Missing:      c.Missing,
		},
	}
	for _, a := range t.OpenAlerts() {
		p.OpenAlerts = append(p.OpenAlerts, AlertID(a.ID))
	}
	return p
}

func metrics(t *twin.Twin) map[string]*doppelv1.Metric {
	var few [8]twin.Metric
	all := t.AppendMetrics(few[:0])
	if len(all) == 0 {
		return nil
	}
	m := make(map[string]*doppelv1.Metric, len(all))
	for i := range all {
		from := &all[i]
		m[from.Name] = &doppelv1.Metric{
			Value:  from.Value,
			Time:   timestamp(from.Time),
			Count:  from.Stats.Count,
			Mean:   from.Stats.Mean,
			Stddev: from.Stats.Stddev,
			Min:    from.Stats.Min,
			Max:    from.Stats.Max,
			Z:      present(from.Z),
			Score:  present(from.Score),
		}
	}
	return m
}

// present is nil for NaN, which means that there is none.
func present(v float64) *float64 {
	if math.IsNaN(v) {
		return nil
	}
	return &v
}

// object is a JSON object as a Struct, nil if it is empty. Its numbers become float64.
func object(text []byte) *structpb.Struct {
	if len(text) <= len("{}") {
		return nil
	}
	s := new(structpb.Struct)
	if err := protojson.Unmarshal(text, s); err != nil {
		return nil // cannot be: the decoder checked it, and the twin merged it
	}
	return s
}
