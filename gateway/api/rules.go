package api

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/doppel-iot/doppel/actors/ruleset"
	"github.com/doppel-iot/doppel/actors/selection"
	"github.com/doppel-iot/doppel/gateway/auth"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// Rules reads and changes rules and silences. Its errors are *ruleset.Invalid, statuses, or of the table in
// status.go.
type Rules interface {
	// Rules are all of them by id, built-in ones included.
	Rules(ctx context.Context) ([]*doppelv1.Rule, error)
	// Silences are those that have not ended.
	Silences(ctx context.Context) ([]*doppelv1.Silence, error)
	// CheckRule says what a rule would be once it is applied, and writes nothing.
	CheckRule(ctx context.Context, r *doppelv1.Rule, by string) (*doppelv1.Rule, error)
	// WriteRules returns when the change is durable and what this Rules reads shows it.
	WriteRules(ctx context.Context, w *doppelv1.WriteRulesRequest) (*doppelv1.WriteRulesResponse, error)
	// Backtest runs one rule over the recorded past: the alerts that would have fired, as they ended, and how
	// many samples it looked at.
	Backtest(ctx context.Context, t *doppelv1.BacktestRequest) (fired []*doppelv1.Alert, samples uint64, err error)
}

const (
	// testRange is how far back a rule is tested if nothing is asked for, testMost the longest range.
	testRange = 24 * time.Hour
	testMost  = 31 * 24 * time.Hour
	// testDevices is how many devices a test may name.
	testDevices = 1000
)

// ruleService serves the rules. Without a port all of it is UNIMPLEMENTED.
type ruleService struct {
	doppelv1.UnimplementedRuleServiceServer
	rules Rules
	now   func() time.Time
}

// ListRules returns one page of the rules, by id.
func (s *ruleService) ListRules(ctx context.Context, req *doppelv1.ListRulesRequest) (*doppelv1.ListRulesResponse, error) {
	if s.rules == nil {
		return s.UnimplementedRuleServiceServer.ListRules(ctx, req)
	}
	p, err := newPage[*doppelv1.Rule](selection.Order{}, "rules", req.GetPageSize(), req.GetPageToken())
	if err != nil {
		return nil, err
	}
	rules, err := s.rules.Rules(ctx)
	if err != nil {
		return nil, err
	}
	for _, r := range rules {
		p.add(r, r.GetId())
	}
	resp := &doppelv1.ListRulesResponse{}
	resp.Rules, resp.NextPageToken = p.result()
	return resp, nil
}

// GetRule returns one rule.
func (s *ruleService) GetRule(ctx context.Context, req *doppelv1.GetRuleRequest) (*doppelv1.Rule, error) {
	if s.rules == nil {
		return s.UnimplementedRuleServiceServer.GetRule(ctx, req)
	}
	if err := checkRuleID("id", req.GetId()); err != nil {
		return nil, err
	}
	rules, err := s.rules.Rules(ctx)
	if err != nil {
		return nil, err
	}
	for _, r := range rules {
		if r.GetId() == req.GetId() {
			return r, nil
		}
	}
	return nil, unknownRule(req.GetId())
}

// ApplyRule makes a rule what the request says. One that is so already keeps its version.
func (s *ruleService) ApplyRule(ctx context.Context, req *doppelv1.ApplyRuleRequest) (*doppelv1.Rule, error) {
	if s.rules == nil {
		return s.UnimplementedRuleServiceServer.ApplyRule(ctx, req)
	}
	if req.GetRule() == nil {
		return nil, invalid("rule", "is required: the rule as it is to be")
	}
	by := auth.Name(ctx)
	next, err := s.rules.CheckRule(ctx, req.GetRule(), by)
	if err != nil {
		return nil, underRule(err)
	}
	if req.GetValidateOnly() {
		return next, nil
	}
	resp, err := s.rules.WriteRules(ctx, &doppelv1.WriteRulesRequest{Write: &doppelv1.WriteRulesRequest_Apply{Apply: req.GetRule()}, By: by})
	if err != nil {
		return nil, underRule(err)
	}
	return resp.GetRule(), nil
}

// DeleteRule removes a rule, or gives a built-in one back what it was.
func (s *ruleService) DeleteRule(ctx context.Context, req *doppelv1.DeleteRuleRequest) (*emptypb.Empty, error) {
	if s.rules == nil {
		return s.UnimplementedRuleServiceServer.DeleteRule(ctx, req)
	}
	if err := checkRuleID("id", req.GetId()); err != nil {
		return nil, err
	}
	_, err := s.rules.WriteRules(ctx, &doppelv1.WriteRulesRequest{Write: &doppelv1.WriteRulesRequest_Delete{Delete: req.GetId()}, By: auth.Name(ctx)})
	if err != nil {
		return nil, err
	}
	return &emptypb.Empty{}, nil
}

// TestRule says what a rule would have done.
func (s *ruleService) TestRule(ctx context.Context, req *doppelv1.TestRuleRequest) (*doppelv1.TestRuleResponse, error) {
	if s.rules == nil {
		return s.UnimplementedRuleServiceServer.TestRule(ctx, req)
	}
	if req.GetRule() == nil {
		return nil, invalid("rule", "is required: the rule as it is to be")
	}
	start, end, err := s.testedRange(req)
	if err != nil {
		return nil, err
	}
	if len(req.GetDevices()) > testDevices {
		return nil, invalid("devices", "%d of them: name at most %d, or none for all", len(req.GetDevices()), testDevices)
	}
	for _, id := range req.GetDevices() {
		if err := checkDevice("devices", id); err != nil {
			return nil, err
		}
	}
	if _, err := s.rules.CheckRule(ctx, req.GetRule(), ""); err != nil {
		return nil, underRule(err)
	}
	fired, samples, err := s.rules.Backtest(ctx, &doppelv1.BacktestRequest{
		Rule: req.GetRule(), Start: timestamppb.New(start), End: timestamppb.New(end), Devices: req.GetDevices(),
	})
	if err != nil {
		return nil, underRule(err)
	}
	return &doppelv1.TestRuleResponse{WouldFire: fired, Samples: samples}, nil
}

func (s *ruleService) testedRange(req *doppelv1.TestRuleRequest) (start, end time.Time, err error) {
	end = s.now()
	if t := req.GetEnd(); t != nil {
		if err := t.CheckValid(); err != nil {
			return start, end, invalid("end", "it is no time")
		}
		end = t.AsTime()
	}
	start = end.Add(-testRange)
	if t := req.GetStart(); t != nil {
		if err := t.CheckValid(); err != nil {
			return start, end, invalid("start", "it is no time")
		}
		start = t.AsTime()
	}
	switch {
	case !start.Before(end):
		return start, end, invalid("start", "it is not before end")
	case end.Sub(start) > testMost:
		return start, end, invalid("start", "more than %d days before end: test a shorter range", int(testMost.Hours()/24))
	}
	return start, end, nil
}

// checkRuleID refuses what no rule has for an id.
func checkRuleID(field, id string) error {
	if id == "" {
		return invalid(field, "is required: the id of a rule, such as builtin.zscore")
	}
	ok := len(id) <= 64
	for _, c := range []byte(id) {
		ok = ok && (c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '.' || c == '-')
	}
	if !ok {
		return invalid(field, "%q is not a rule's: want 1 to 64 of a-z, 0-9, dot and hyphen", shorten(id))
	}
	return nil
}

// underRule puts the field of a request in front of what is wrong with the rule in it.
func underRule(err error) error {
	if bad := (*ruleset.Invalid)(nil); errors.As(err, &bad) {
		return invalid("rule."+bad.Field, "%s", bad.Text)
	}
	return err
}

// asViolation makes what is wrong with a message that is the request itself an error of it.
func asViolation(err error) error {
	if bad := (*ruleset.Invalid)(nil); errors.As(err, &bad) {
		return invalid(bad.Field, "%s", bad.Text)
	}
	return err
}

func unknownRule(id string) error {
	return because(codes.NotFound, "UNKNOWN_RULE", "rule %q does not exist: ListRules has those that do", id)
}
