package filter

import (
	"math"
	"time"

	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
	"cel.dev/cel-go/interpreter"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/doppel-iot/doppel/actors/codec"
	"github.com/doppel-iot/doppel/actors/twin"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// Facts are what a Twin shows that is not the twin's own. Expression rules see none of it.
type Facts struct {
	Owner       string
	Epoch       uint64
	Quarantined bool
}

// HoldsTwin is Matches of the message that codec.Twin would make of t, without making it: only what
// the filter asks for is looked at. The filter must be one over Twin.
func (f Filter) HoldsTwin(t *twin.Twin, facts Facts) (bool, error) {
	if f.program == nil {
		return true, nil
	}
	return f.eval(&twinActivation{fields: f.fields, twin: t, facts: facts})
}

// Message is the message that a filter sees of t.
func Message(t *twin.Twin, facts Facts) *doppelv1.Twin {
	m := codec.Twin(t)
	m.Owner, m.Epoch, m.Quarantined = facts.Owner, facts.Epoch, m.GetQuarantined() || facts.Quarantined
	return m
}

// twinActivation gives a filter the fields of a twin. What it does not know how to look up it takes
// from the message, made once.
type twinActivation struct {
	fields *fieldSet
	twin   *twin.Twin
	facts  Facts
	whole  *activation
}

var _ interpreter.Activation = (*twinActivation)(nil)

// Parent implements interpreter.Activation.
func (a *twinActivation) Parent() interpreter.Activation { return nil }

// ResolveName implements interpreter.Activation.
func (a *twinActivation) ResolveName(name string) (any, bool) {
	t := a.twin
	switch name {
	case "id":
		return types.String(t.ID()), true
	case "version":
		return types.Uint(t.Version()), true
	case "reported_version", "reportedVersion":
		return types.Uint(t.ReportedVersion()), true
	case "boot":
		return types.Uint(t.Boot()), true
	case "seq":
		return types.Uint(t.Seq()), true
	case "digest":
		return types.Uint(t.Digest()), true
	case "online":
		return types.Bool(t.Online()), true
	case "owner":
		return types.String(a.facts.Owner), true
	case "epoch":
		return types.Uint(a.facts.Epoch), true
	case "quarantined":
		return types.Bool(t.Quarantined() || a.facts.Quarantined), true
	case "last_seen", "lastSeen":
		return instant(t.LastSeen()), true
	case "create_time", "createTime":
		return instant(t.CreateTime()), true
	case "counters":
		return &counters{message: message{a: a, field: "counters"}, counts: t.Counters()}, true
	case "tags":
		return ordered(types.NewStringStringMap(a.fields.adapter, t.Tags())), true
	case "desired_version", "desiredVersion":
		return types.Uint(t.DesiredVersion()), true
	case "tags_version", "tagsVersion":
		return types.Uint(t.TagsVersion()), true
	case "diverge_time", "divergeTime":
		return instant(t.DivergeTime()), true
	case "metrics":
		return &lazyMap{whole: a.wholeMap(name), find: a.metric, size: t.KnownMetrics}, true
	case "reported":
		return &lazyMap{whole: a.wholeMap(name), find: a.reported}, true
	case "open_alerts", "openAlerts":
		open := t.OpenAlerts()
		ids := make([]string, len(open))
		for i := range open {
			ids[i] = codec.AlertID(open[i].ID)
		}
		return types.NewStringList(a.fields.adapter, ids), true
	default:
		return a.message().ResolveName(name)
	}
}

// message is the fallback for all else.
func (a *twinActivation) message() *activation {
	if a.whole == nil {
		a.whole = &activation{fields: a.fields, msg: Message(a.twin, a.facts)}
	}
	return a.whole
}

func (a *twinActivation) wholeMap(name string) func() traits.Mapper {
	return func() traits.Mapper {
		v, _ := a.message().ResolveName(name)
		m, _ := v.(traits.Mapper)
		return m
	}
}

func (a *twinActivation) metric(name string) (ref.Val, bool) {
	latest, ok := a.twin.Latest(name)
	if !ok {
		return nil, false
	}
	return &metric{message: message{a: a, field: "metrics", key: name}, latest: latest}, true
}

func (a *twinActivation) reported(key string) (ref.Val, bool) {
	text := a.twin.ReportedMember(key)
	if text == nil {
		return nil, false
	}
	v := new(structpb.Value)
	if err := protojson.Unmarshal(text, v); err != nil {
		return nil, false // cannot be: the twin keeps canonical JSON
	}
	return ordered(a.fields.adapter.NativeToValue(v)), true
}

// instant is a time as a filter sees it: one that has not come compares with nothing.
func instant(nanos int64) ref.Val {
	if nanos == 0 {
		return types.NullValue
	}
	return types.Timestamp{Time: time.Unix(0, nanos).UTC()}
}

// metric is a Metric whose fields are looked up when they are asked for.
type metric struct {
	message
	latest twin.Latest
}

func (m *metric) get(field string) (any, bool) {
	switch field {
	case "value":
		return m.latest.Value, true
	case "z":
		return orZero(m.latest.Z), true
	case "score":
		return orZero(m.latest.Score), true
	case "time":
		return time.Unix(0, m.latest.Time).UTC(), true
	}
	w := m.a.twin.Window(m.key)
	switch field {
	case "count":
		return w.Count, true
	case "mean":
		return w.Mean, true
	case "stddev":
		return w.Stddev, true
	case "min":
		return w.Min, true
	case "max":
		return w.Max, true
	default:
		return nil, false
	}
}

// orZero is what an optional number shows that is absent.
func orZero(v float64) float64 {
	if math.IsNaN(v) {
		return 0
	}
	return v
}

// counters are Counters.
type counters struct {
	message
	counts twin.Counters
}

func (c *counters) get(field string) (any, bool) {
	switch field {
	case "applied":
		return c.counts.Applied, true
	case "late":
		return c.counts.Late, true
	case "duplicate":
		return c.counts.Duplicate, true
	case "dead_lettered":
		return c.counts.DeadLettered, true
	case "held":
		return c.counts.Held, true
	case "gaps":
		return c.counts.Gaps, true
	case "missing":
		return c.counts.Missing, true
	default:
		return nil, false
	}
}
