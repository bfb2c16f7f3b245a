package host

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/doppel-iot/doppel/actors/alert"
	"github.com/doppel-iot/doppel/actors/codec"
	"github.com/doppel-iot/doppel/actors/twin"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

const (
	// evidenceBefore and evidenceAfter are how many readings are shown around each transition of an alert,
	// evidenceMost how many in all.
	evidenceBefore = 16
	evidenceAfter  = 4
	evidenceMost   = 256
)

// Explain folds the log of a device again and says what that makes of one of its alerts, by the rules that were
// in force, whether it is what was recorded at the time, and the readings around its transitions.
func (h *Host) Explain(ctx context.Context, p int32, device, id string) (*doppelv1.ExplainAlertResponse, error) {
	n, err := strconv.ParseUint(id, 16, 64)
	if err != nil {
		return nil, ErrUnknownAlert
	}
	f, err := h.past(ctx, p, device)
	if err != nil {
		return nil, err
	}
	var known bool
	next, err := h.moment(ctx, p, func(o *owner) { _, known = o.alerts.byID[n] })
	if err != nil {
		return nil, err
	}
	e := explanation{id: n, device: device, equal: true}
	f.applied = func() { e.take(&f.event, &f.fx) }
	if err := f.read(ctx, next, func(LogRecord) bool { return e.over() }); err != nil {
		return nil, err
	}
	switch {
	case e.recorded != nil:
		return &doppelv1.ExplainAlertResponse{Recomputed: e.recomputed, Equal: e.equal, Evidence: e.evidence}, nil
	case known:
		return nil, fmt.Errorf("explain alert %s: %w", id, ErrNotRetained)
	default:
		return nil, ErrUnknownAlert
	}
}

// explanation gathers what a fold tells of one alert.
type explanation struct {
	id     uint64
	device string

	recorded, recomputed *doppelv1.Alert // as they stand after the newest transition
	equal                bool            // so far, at every transition

	recent   []evident // samples that no evidence shows yet
	evidence []*doppelv1.Point
	after    int // samples still to show behind a transition
}

// evident is an applied sample that may become evidence.
type evident struct {
	time      int64
	boot, seq uint64
	readings  []twin.ScoredReading
}

// take takes a record of the device, and what its replay gave.
func (e *explanation) take(recorded *codec.Event, got *twin.Effects) {
	for i := range got.Applied {
		if a := &got.Applied[i]; !a.Late {
			e.sample(a)
		}
	}
	was := of(e.id, recorded.Effects.Transitions)
	is := of(e.id, got.Transitions)
	if len(was)+len(is) == 0 {
		return
	}
	e.equal = e.equal && slices.EqualFunc(was, is, func(a, b alert.Alert) bool {
		return proto.Equal(codec.Alert(e.device, &a), codec.Alert(e.device, &b))
	})
	if len(was) > 0 {
		e.recorded = codec.Alert(e.device, &was[len(was)-1])
	}
	if len(is) > 0 {
		e.recomputed = codec.Alert(e.device, &is[len(is)-1])
	}
	metric := e.recorded.GetMetric()
	if e.recorded == nil {
		metric = e.recomputed.GetMetric()
	}
	for i := range e.recent {
		e.show(&e.recent[i], metric)
	}
	e.recent, e.after = e.recent[:0], evidenceAfter
}

func (e *explanation) sample(a *twin.AppliedSample) {
	s := evident{time: a.Time, boot: a.Boot, seq: a.Seq, readings: slices.Clone(a.Readings)}
	if e.after > 0 {
		e.after--
		e.show(&s, e.recomputed.GetMetric())
		return
	}
	if len(e.recent) == evidenceBefore {
		e.recent = slices.Delete(e.recent, 0, 1)
	}
	e.recent = append(e.recent, s)
}

// show makes a sample evidence: its reading of the alert's metric, of an alert that has none its first one.
func (e *explanation) show(s *evident, metric string) {
	i := slices.IndexFunc(s.readings, func(r twin.ScoredReading) bool { return metric == "" || r.Name == metric })
	if i < 0 || len(e.evidence) == evidenceMost {
		return
	}
	r := &s.readings[i]
	point := &doppelv1.Point{Time: timestamppb.New(time.Unix(0, s.time)), Boot: s.boot, Seq: s.seq, Value: r.Value, Count: 1}
	if !math.IsNaN(r.Z) {
		point.Z = &r.Z
	}
	e.evidence = append(e.evidence, point)
}

// over says that nothing more is to be learned.
func (e *explanation) over() bool {
	return e.recorded.GetState() == doppelv1.AlertState_RESOLVED && e.after == 0
}

// of are the transitions of one alert.
func of(id uint64, all []alert.Alert) (its []alert.Alert) {
	for i := range all {
		if all[i].ID == id {
			its = append(its, all[i])
		}
	}
	return its
}
