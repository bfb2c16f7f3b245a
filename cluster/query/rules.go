package query

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"

	"github.com/doppel-iot/doppel/actors/host"
	"github.com/doppel-iot/doppel/actors/ruleset"
	"github.com/doppel-iot/doppel/cluster/rulebook"
	"github.com/doppel-iot/doppel/gateway/auth"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// RuleBook is the rules as this node knows them; *rulebook.Book implements it.
type RuleBook interface {
	Rules(ctx context.Context) ([]*doppelv1.Rule, error)
	Silences(ctx context.Context) ([]*doppelv1.Silence, error)
	Checked(ctx context.Context, r *doppelv1.Rule, by string) (*doppelv1.Rule, error)
	// Change writes, where this node may, and returns when it is durable.
	Change(ctx context.Context, w *doppelv1.WriteRulesRequest) (*doppelv1.WriteRulesResponse, error)
	// Await returns when this node knows all below an offset of doppel.rules, AwaitPublished when its
	// partitions go by it, too.
	Await(ctx context.Context, next int64) error
	AwaitPublished(ctx context.Context, next int64) error
}

// Rules reads rules at this node, has them changed by the node that serves partition 0, and tests them by
// the nodes that serve the devices.
type Rules struct {
	reader *Reader
	book   RuleBook
}

// NewRules returns Rules.
func NewRules(r *Reader, book RuleBook) *Rules { return &Rules{reader: r, book: book} }

// Rules returns all rules by id, built-in ones included.
func (q *Rules) Rules(ctx context.Context) ([]*doppelv1.Rule, error) {
	rules, err := q.book.Rules(ctx)
	return rules, ruleStatus(err)
}

// Silences returns those that have not ended.
func (q *Rules) Silences(ctx context.Context) ([]*doppelv1.Silence, error) {
	silences, err := q.book.Silences(ctx)
	return silences, ruleStatus(err)
}

// CheckRule returns a rule as it would be once it is applied. What is wrong with it is a *ruleset.Invalid.
func (q *Rules) CheckRule(ctx context.Context, r *doppelv1.Rule, by string) (*doppelv1.Rule, error) {
	next, err := q.book.Checked(ctx, r, by)
	if bad := (*ruleset.Invalid)(nil); errors.As(err, &bad) {
		return nil, err
	}
	return next, ruleStatus(err)
}

// writer is the partition whose node writes the rules.
const writer = int32(0)

// WriteRules has a change made, and returns when this node knows it and the owners of all partitions go by it: what
// is sent from then on meets it. Owners that do not answer are not waited for, as it is durable.
func (q *Rules) WriteRules(ctx context.Context, w *doppelv1.WriteRulesRequest) (resp *doppelv1.WriteRulesResponse, err error) {
	r := q.reader
	err = r.ask(ctx, []int32{writer}, func(ctx context.Context, to Route, ps []int32) (missed, error) {
		if to.Local {
			return each(ctx, ps, func(ctx context.Context, _ int32) (err error) {
				resp, err = q.book.Change(ctx, w)
				return ruleStatus(err)
			})
		}
		return r.remote(ctx, to.Address, ps, func(ctx context.Context, c doppelv1.QueryServiceClient) (m missed, err error) {
			resp, err = c.WriteRules(ctx, w)
			return m, err
		})
	})
	if err != nil {
		return nil, err
	}
	if err := q.book.Await(ctx, int64(resp.GetOffset())); err != nil {
		return nil, ruleStatus(err)
	}
	if err := q.settle(ctx, resp.GetOffset()); err != nil {
		r.cfg.Logger.DebugContext(ctx, "not every partition goes by the newest rules yet", "err", err)
	}
	return resp, nil
}

// settle waits until the partitions go by all below an offset of doppel.rules.
func (q *Rules) settle(ctx context.Context, offset uint64) error {
	r := q.reader
	ctx, cancel := context.WithTimeout(ctx, r.cfg.Patience)
	defer cancel()
	return r.ask(ctx, r.all(), func(ctx context.Context, to Route, ps []int32) (m missed, err error) {
		if to.Local {
			return m, q.book.AwaitPublished(ctx, int64(offset))
		}
		return r.remote(ctx, to.Address, ps, func(ctx context.Context, c doppelv1.QueryServiceClient) (m missed, err error) {
			_, err = c.WriteRules(ctx, &doppelv1.WriteRulesRequest{Write: &doppelv1.WriteRulesRequest_Await{Await: offset}})
			return m, err
		})
	})
}

// firedMost is how many alerts a backtest returns; beyond it is refused. With the largest of them an answer is
// still one that clients take.
const firedMost = 5000

// Backtest runs one rule over the recorded past of all partitions, or those of the devices named.
func (q *Rules) Backtest(ctx context.Context, t *doppelv1.BacktestRequest) (fired []*doppelv1.Alert, samples uint64, err error) {
	r := q.reader
	ps := r.all()
	if len(t.GetDevices()) > 0 {
		ps = nil
		for _, id := range t.GetDevices() {
			ps = append(ps, r.partition(id))
		}
		slices.Sort(ps)
		ps = slices.Compact(ps)
	}
	var mu sync.Mutex
	add := func(alerts []*doppelv1.Alert, n uint64) error {
		mu.Lock()
		defer mu.Unlock()
		fired, samples = append(fired, alerts...), samples+n
		if len(fired) > firedMost {
			return status.Errorf(codes.ResourceExhausted, "the rule would fire more than %d times: test a shorter range or fewer devices", firedMost)
		}
		return nil
	}
	err = r.ask(ctx, ps, func(ctx context.Context, to Route, ps []int32) (missed, error) {
		if to.Local {
			return backtests(ctx, r.cfg.Host, ps, t, add)
		}
		return r.remote(ctx, to.Address, ps, func(ctx context.Context, c doppelv1.QueryServiceClient) (m missed, err error) {
			s, err := c.Backtest(ctx, &doppelv1.BacktestRequest{
				Partitions: ps, Rule: t.GetRule(), Start: t.GetStart(), End: t.GetEnd(), Devices: t.GetDevices(),
			})
			if err != nil {
				return m, err
			}
			var alerts []*doppelv1.Alert
			var n uint64
			for {
				resp, err := s.Recv()
				if err == io.EOF { //nolint:errorlint // Recv returns it bare
					return m, add(alerts, n)
				}
				if err != nil {
					return m, err // what came is left out: it is asked again
				}
				alerts, n = append(alerts, resp.GetWouldFire()...), n+resp.GetSamples()
				m.partitions = append(m.partitions, resp.GetNotServed()...)
			}
		})
	})
	if err != nil {
		return nil, 0, err
	}
	slices.SortFunc(fired, func(a, b *doppelv1.Alert) int {
		return cmp.Or(a.GetCreateTime().AsTime().Compare(b.GetCreateTime().AsTime()), cmp.Compare(a.GetId(), b.GetId()))
	})
	return fired, samples, nil
}

// backtests runs a rule over partitions of this node, one after another: it is a reading of the whole log, and
// people's twins come first.
func backtests(ctx context.Context, h Host, ps []int32, t *doppelv1.BacktestRequest, out func([]*doppelv1.Alert, uint64) error) (m missed, err error) {
	for _, p := range ps {
		fired, samples, err := h.Backtest(ctx, p, host.Backtest{
			Rule: t.GetRule(), Start: t.GetStart().AsTime().UnixNano(), End: t.GetEnd().AsTime().UnixNano(), Devices: t.GetDevices(),
		})
		switch {
		case notServed(err):
			m.partitions = append(m.partitions, p)
			continue
		case err != nil:
			return m, ruleStatus(err)
		}
		if err := out(fired, samples); err != nil {
			return m, err
		}
	}
	return m, nil
}

// ServeRules lets other nodes have rules changed by this one. Call it before the server serves.
func (s *Server) ServeRules(book RuleBook) { s.rules = book }

// WriteRules implements the service.
func (s *Server) WriteRules(ctx context.Context, req *doppelv1.WriteRulesRequest) (*doppelv1.WriteRulesResponse, error) {
	if s.rules == nil {
		return s.UnimplementedQueryServiceServer.WriteRules(ctx, req)
	}
	if w, ok := req.GetWrite().(*doppelv1.WriteRulesRequest_Await); ok {
		if err := s.rules.AwaitPublished(ctx, int64(w.Await)); err != nil {
			return nil, toStatus(err)
		}
		return &doppelv1.WriteRulesResponse{Offset: w.Await}, nil
	}
	resp, err := s.rules.Change(ctx, req)
	if err != nil {
		return nil, toStatus(ruleStatus(err))
	}
	return resp, nil
}

// Backtest implements the service.
func (s *Server) Backtest(req *doppelv1.BacktestRequest, stream grpc.ServerStreamingServer[doppelv1.BacktestResponse]) error {
	for _, p := range req.GetPartitions() {
		if err := s.check(p); err != nil {
			return err
		}
	}
	m, err := backtests(stream.Context(), s.host, req.GetPartitions(), req, func(fired []*doppelv1.Alert, samples uint64) error {
		for len(fired) > answerAlerts {
			if err := stream.Send(&doppelv1.BacktestResponse{WouldFire: fired[:answerAlerts]}); err != nil {
				return err
			}
			fired = fired[answerAlerts:]
		}
		return stream.Send(&doppelv1.BacktestResponse{WouldFire: fired, Samples: samples})
	})
	if err == nil && len(m.partitions) > 0 {
		err = stream.Send(&doppelv1.BacktestResponse{NotServed: m.partitions})
	}
	return toStatus(err)
}

// ruleStatus makes an error of the rule book one that is the same at every node.
func ruleStatus(err error) error {
	bad := (*ruleset.Invalid)(nil)
	switch {
	case err == nil:
		return nil
	case errors.As(err, &bad):
		return detailed(codes.InvalidArgument, "rule."+bad.Error(), &errdetails.BadRequest{
			FieldViolations: []*errdetails.BadRequest_FieldViolation{{Field: "rule." + bad.Field, Description: bad.Text}},
		})
	case errors.Is(err, rulebook.ErrUnknownRule):
		return detailed(codes.NotFound, err.Error(), &errdetails.ErrorInfo{Reason: "UNKNOWN_RULE", Domain: auth.Domain})
	case errors.Is(err, rulebook.ErrUnknownSilence):
		return detailed(codes.NotFound, err.Error(), &errdetails.ErrorInfo{Reason: "UNKNOWN_SILENCE", Domain: auth.Domain})
	case errors.Is(err, rulebook.ErrFull), errors.Is(err, host.ErrTooMuch):
		return status.Error(codes.ResourceExhausted, err.Error())
	case errors.Is(err, rulebook.ErrNotWriter), errors.Is(err, rulebook.ErrContended):
		return fmt.Errorf("%w: %w", err, host.ErrUnavailable)
	default:
		return err
	}
}

func detailed(code codes.Code, text string, d protoadapt.MessageV1) error {
	st := status.New(code, text)
	if with, err := st.WithDetails(d); err == nil {
		st = with
	}
	return st.Err()
}
