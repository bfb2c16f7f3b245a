package apitest

import (
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/doppel-iot/doppel/actors/ruleset"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// rules are those of a Fleet. It keeps what it is told, as one node alone would, without a log.
type rules struct {
	list     []*doppelv1.Rule
	silences []*doppelv1.Silence
}

// Rules implements api.Rules.
func (f *Fleet) Rules(ctx context.Context) ([]*doppelv1.Rule, error) {
	if err := f.enter(ctx); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.rules.list, nil
}

// Silences implements api.Rules.
func (f *Fleet) Silences(ctx context.Context) ([]*doppelv1.Silence, error) {
	if err := f.enter(ctx); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.rules.silences, nil
}

// CheckRule implements api.Rules.
func (f *Fleet) CheckRule(_ context.Context, r *doppelv1.Rule, by string) (*doppelv1.Rule, error) {
	if _, err := ruleset.NewCompiler().Rule(r); err != nil {
		return nil, err
	}
	next := proto.CloneOf(r)
	next.Version, next.UpdatedBy = 1, by
	return next, nil
}

// WriteRules implements api.Rules.
func (f *Fleet) WriteRules(ctx context.Context, w *doppelv1.WriteRulesRequest) (*doppelv1.WriteRulesResponse, error) {
	if err := f.enter(ctx); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	resp := &doppelv1.WriteRulesResponse{}
	switch in := w.GetWrite().(type) {
	case *doppelv1.WriteRulesRequest_Apply:
		resp.Rule = proto.CloneOf(in.Apply)
		resp.Rule.Version, resp.Rule.UpdatedBy = 1, w.GetBy()
		f.rules.list = append(f.rules.list, resp.GetRule())
	case *doppelv1.WriteRulesRequest_Silence:
		resp.Silence = in.Silence
		f.rules.silences = append(f.rules.silences, in.Silence)
	default:
		return nil, status.Error(codes.NotFound, "there is none")
	}
	return resp, nil
}

// Backtest implements api.Rules.
func (f *Fleet) Backtest(ctx context.Context, _ *doppelv1.BacktestRequest) ([]*doppelv1.Alert, uint64, error) {
	return nil, 0, f.enter(ctx)
}
