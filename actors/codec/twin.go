package codec

import (
	"maps"
	"math"
	"strconv"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/doppel-iot/doppel/actors/twin"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// shown and shownMetric are pieces of a public form that live and die together: one allocation each, as
// reads of twins are the most frequent of all.
type (
	shown struct {
		twin              doppelv1.Twin
		counters          doppelv1.Counters
		lastSeen, created timestamppb.Timestamp
	}
	shownMetric struct {
		metric   doppelv1.Metric
		time     timestamppb.Timestamp
		z, score float64
	}
)

// Twin is the public form of a twin. What is not the twin's own (owner, epoch) is left
// to the caller. The caller owns the result; it shares nothing with t.
func Twin(t *twin.Twin) *doppelv1.Twin {
	c := t.Counters()
	s := new(shown)
	s.counters = doppelv1.Counters{
		Applied:      c.Applied,
		Late:         c.Late,
		Duplicate:    c.Duplicate,
		DeadLettered: c.DeadLettered,
		Held:         c.Held,
		Gaps:         c.Gaps,
		Missing:      c.Missing,
	}
	s.twin = doppelv1.Twin{
		Id:              t.ID(),
		Version:         t.Version(),
		ReportedVersion: t.ReportedVersion(),
		Boot:            t.Boot(),
		Seq:             t.Seq(),
		Digest:          t.Digest(),
		SetDigest:       t.SetDigest(),
		Online:          t.Online(),
		LastSeen:        timestampIn(&s.lastSeen, t.LastSeen()),
		CreateTime:      timestampIn(&s.created, t.CreateTime()),
		Quarantined:     t.Quarantined(),
		Etag:            Etag(t),
		DesiredVersion:  t.DesiredVersion(),
		TagsVersion:     t.TagsVersion(),
		Tags:            maps.Clone(t.Tags()),
		DivergeTime:     timestamp(t.DivergeTime()),
		Metrics:         metrics(t),
		Counters:        &s.counters,
	}
	p := &s.twin
	if reported := t.Reported(); len(reported) > len("{}") {
		p.Reported = object(reported)
	}
	if t.DesiredVersion() > 0 { // nothing desired any more, or nothing left to do, is empty and not unset
		p.Desired, p.Delta = object(t.Desired()), object(t.AppendDelta(nil))
		if took, ok := t.Convergence(); ok {
			p.Convergence = durationpb.New(time.Duration(took))
		}
	}
	for _, a := range t.OpenAlerts() {
		p.OpenAlerts = append(p.OpenAlerts, AlertID(a.ID))
	}
	return p
}

// Etag is the public form of a twin's etag.
func Etag(t *twin.Twin) string { return AlertID(t.Etag()) }

// DesiredMessage is what a device is told of what is desired of it: nil if there is nothing to be told, as nothing
// was ever desired or the twin is deleted.
func DesiredMessage(t *twin.Twin) []byte {
	if t.DesiredVersion() == 0 {
		return nil
	}
	b := append([]byte(nil), `{"version":`...)
	b = strconv.AppendUint(b, t.DesiredVersion(), 10)
	b = append(append(b, `,"desired":`...), t.Desired()...)
	return append(t.AppendDelta(append(b, `,"delta":`...)), '}')
}

func metrics(t *twin.Twin) map[string]*doppelv1.Metric {
	var few [8]twin.Metric
	all := t.AppendMetrics(few[:0])
	if len(all) == 0 {
		return nil
	}
	m, slab := make(map[string]*doppelv1.Metric, len(all)), make([]shownMetric, len(all))
	for i := range all {
		from, to := &all[i], &slab[i]
		to.metric = doppelv1.Metric{
			Value:  from.Value,
			Time:   timestampIn(&to.time, from.Time),
			Count:  from.Stats.Count,
			Mean:   from.Stats.Mean,
			Stddev: from.Stats.Stddev,
			Min:    from.Stats.Min,
			Max:    from.Stats.Max,
			Z:      presentIn(&to.z, from.Z),
			Score:  presentIn(&to.score, from.Score),
		}
		m[from.Name] = &to.metric
	}
	return m
}

// presentIn is to with v in it; nil for NaN, which means that there is none.
func presentIn(to *float64, v float64) *float64 {
	if math.IsNaN(v) {
		return nil
	}
	*to = v
	return to
}

// object is a JSON object as a Struct. Its numbers become float64.
func object(text []byte) *structpb.Struct {
	s := new(structpb.Struct)
	if len(text) <= len("{}") {
		return s
	}
	if err := protojson.Unmarshal(text, s); err != nil {
		return new(structpb.Struct) // cannot be: the decoder checked it, and the twin merged it
	}
	return s
}
