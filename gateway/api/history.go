package api

import (
	"context"
	"encoding/binary"
	"math"
	"time"

	"github.com/cespare/xxhash/v2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/doppel-iot/doppel/actors/codec"
	"github.com/doppel-iot/doppel/actors/history"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// History reads what the metrics of devices were.
type History interface {
	// History returns the first points of an answer; history.ErrTooMuch or history.ErrBehind.
	History(ctx context.Context, q history.Query) (history.Page, error)
}

const (
	defaultSpan    = time.Hour
	defaultPoints  = 1000
	maxPoints      = 10_000
	minimumBucket  = time.Millisecond
	tokenHistoryOf = 40 // bytes of the content of a token of GetHistory
)

// GetHistory returns samples of a metric, or sums over intervals of time. The buckets count from the start
// asked for; one without samples is absent.
func (s *twinService) GetHistory(ctx context.Context, req *doppelv1.GetHistoryRequest) (*doppelv1.GetHistoryResponse, error) {
	q, err := historyQuery(req, time.Now())
	if err != nil {
		return nil, err
	}
	if s.history == nil {
		return nil, status.Error(codes.Unimplemented, "this node serves no history")
	}
	if _, err := s.twins.Twin(ctx, q.Device); err != nil {
		return nil, err
	}
	page, err := s.history.History(ctx, q)
	if err != nil {
		return nil, err
	}
	resp := &doppelv1.GetHistoryResponse{Source: page.Source, Points: make([]*doppelv1.Point, 0, len(page.Points))}
	for i := range page.Points {
		resp.Points = append(resp.Points, point(&page.Points[i]))
	}
	if page.RetainedFrom != 0 {
		resp.RetainedFrom = timestamppb.New(time.Unix(0, page.RetainedFrom))
	}
	if n := len(page.Points); page.More && n > 0 {
		resp.NextPageToken = historyToken(req, &q, page.Points[n-1].Place)
	}
	return resp, nil
}

func point(p *history.Point) *doppelv1.Point {
	m := &doppelv1.Point{Time: timestamppb.New(time.Unix(0, p.Time))}
	if p.Count > 0 {
		m.Count, m.Mean, m.Min, m.Max = p.Count, p.Mean, p.Min, p.Max
		return m
	}
	m.Boot, m.Seq, m.Value = p.Boot, p.Seq, p.Value
	if !math.IsNaN(p.Z) {
		m.Z = &p.Z
	}
	return m
}

// historyQuery is the question of a request that came at now.
func historyQuery(req *doppelv1.GetHistoryRequest, now time.Time) (q history.Query, err error) {
	if err := checkDevice("id", req.GetId()); err != nil {
		return q, err
	}
	switch {
	case req.GetMetric() == "":
		return q, invalid("metric", "is required: the name of a metric, such as temperature")
	case !codec.ValidMetric(req.GetMetric()):
		return q, invalid("metric", "%q is not the name of a metric: want [A-Za-z_][A-Za-z0-9_]{0,63}", shorten(req.GetMetric()))
	case req.GetPageSize() < 0:
		return q, negativePage(req.GetPageSize(), maxPoints)
	}
	q = history.Query{Device: req.GetId(), Metric: req.GetMetric(), Limit: min(int(req.GetPageSize()), maxPoints)}
	if q.Limit == 0 {
		q.Limit = defaultPoints
	}
	if i := req.GetInterval(); i != nil {
		if err := i.CheckValid(); err != nil {
			return q, invalid("interval", "%v", err)
		}
		if q.Interval = int64(i.AsDuration()); q.Interval < int64(minimumBucket) {
			return q, invalid("interval", "%v is less than %v", i.AsDuration(), minimumBucket)
		}
	}
	if err := span(req, now, &q); err != nil {
		return q, err
	}
	return q, openHistoryToken(req, &q)
}

// span sets start and end: the last hour, or the hour before end.
func span(req *doppelv1.GetHistoryRequest, now time.Time, q *history.Query) error {
	q.End = now.UnixNano()
	if req.GetEnd() != nil {
		t, err := instant("end", req.GetEnd())
		if err != nil {
			return err
		}
		q.End = t
	}
	q.Start = max(q.End-int64(defaultSpan), 1)
	if req.GetStart() != nil {
		t, err := instant("start", req.GetStart())
		if err != nil {
			return err
		}
		q.Start = t
	}
	if q.Start >= q.End {
		return invalid("start", "%s is not before the end, %s", timeText(q.Start), timeText(q.End))
	}
	return nil
}

func instant(field string, ts *timestamppb.Timestamp) (int64, error) {
	if err := ts.CheckValid(); err != nil {
		return 0, invalid(field, "%v", err)
	}
	t := ts.AsTime()
	if !t.After(time.Unix(0, 0)) || t.After(time.Unix(0, math.MaxInt64)) {
		return 0, invalid(field, "%s is not between 1970 and 2262", t.Format(time.RFC3339))
	}
	return t.UnixNano(), nil
}

func timeText(nanos int64) string { return time.Unix(0, nanos).UTC().Format(time.RFC3339Nano) }

// historyHash is of what a token is bound to.
func historyHash(req *doppelv1.GetHistoryRequest) uint64 {
	b := append([]byte(req.GetId()), 0)
	b = append(append(b, req.GetMetric()...), 0)
	for _, t := range []*timestamppb.Timestamp{req.GetStart(), req.GetEnd()} {
		b = binary.LittleEndian.AppendUint64(b, uint64(t.GetSeconds()))
		b = binary.LittleEndian.AppendUint64(b, uint64(t.GetNanos()))
	}
	b = binary.LittleEndian.AppendUint64(b, uint64(req.GetInterval().AsDuration()))
	return xxhash.Sum64(b)
}

// historyToken names the page behind a place. It holds the span, too: its defaults move with the clock.
func historyToken(req *doppelv1.GetHistoryRequest, q *history.Query, last history.Place) string {
	b := binary.LittleEndian.AppendUint64(make([]byte, 0, tokenHistoryOf), historyHash(req))
	b = binary.LittleEndian.AppendUint64(b, uint64(q.Start))
	b = binary.LittleEndian.AppendUint64(b, uint64(q.End))
	b = binary.LittleEndian.AppendUint64(b, uint64(last.Time))
	b = binary.AppendUvarint(b, last.Boot)
	b = binary.AppendUvarint(b, last.Seq)
	return sealToken(tokenHistory, b)
}

func openHistoryToken(req *doppelv1.GetHistoryRequest, q *history.Query) error {
	if req.GetPageToken() == "" {
		return nil
	}
	b, err := openToken("page_token", tokenHistory, req.GetPageToken())
	if err != nil {
		return err
	}
	r := tokenReader{b: b}
	if r.fixed64() != historyHash(req) {
		return invalid("page_token", "belongs to another id, metric, start, end or interval")
	}
	q.Start, q.End = int64(r.fixed64()), int64(r.fixed64())
	q.After = history.Place{Time: int64(r.fixed64()), Boot: r.uvarint(), Seq: r.uvarint()}
	if q.Start <= 0 || q.End <= q.Start || q.After.Time < q.Start || q.After.Time >= q.End {
		r.bad = true
	}
	return r.end("page_token")
}
