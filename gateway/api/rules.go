package api

import (
	"context"

	"github.com/doppel-iot/doppel/actors/selection"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// ruleService serves the rules in force. What it does not define is UNIMPLEMENTED.
type ruleService struct {
	doppelv1.UnimplementedRuleServiceServer
	rules Rules
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
