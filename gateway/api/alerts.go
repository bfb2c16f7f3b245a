package api

import (
	"context"

	"github.com/doppel-iot/doppel/actors/filter"
	"github.com/doppel-iot/doppel/actors/ruleset"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// newestFirst is the order of alerts if none is asked for.
const newestFirst = "create_time desc"

// alertService serves reads of alerts. What it does not define is UNIMPLEMENTED.
type alertService struct {
	doppelv1.UnimplementedAlertServiceServer
	alerts Alerts
	desk   AlertDesk
	hub    *Hub
	filter *filter.Env
	// rules nil: silences are UNIMPLEMENTED. silencer checks their filters.
	rules    Rules
	silencer *ruleset.Compiler
}

// GetAlert returns one alert that is open or was resolved within 24 h.
func (s *alertService) GetAlert(ctx context.Context, req *doppelv1.GetAlertRequest) (*doppelv1.Alert, error) {
	return s.find(ctx, req.GetId())
}

// ListAlerts returns one page of the alerts that are open or were resolved within 24 h.
func (s *alertService) ListAlerts(ctx context.Context, req *doppelv1.ListAlertsRequest) (*doppelv1.ListAlertsResponse, error) {
	match, err := compileFilter(s.filter, req.GetFilter())
	if err != nil {
		return nil, err
	}
	shadows := match.Mentions("shadow") // nobody else wants those of rules that are being tried out
	orderBy := req.GetOrderBy()
	if orderBy == "" {
		orderBy = newestFirst
	}
	o, err := parseOrder(orderBy, &doppelv1.Alert{})
	if err != nil {
		return nil, err
	}
	p, err := newPage[*doppelv1.Alert](o, req.GetFilter(), req.GetPageSize(), req.GetPageToken())
	if err != nil {
		return nil, err
	}
	alerts, err := s.alerts.Alerts(ctx)
	if err != nil {
		return nil, err
	}
	for _, a := range alerts {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if a.GetShadow() && !shadows {
			continue
		}
		ok, err := match.Matches(a)
		if err != nil {
			return nil, err
		}
		if ok {
			p.add(a, a.GetId())
		}
	}
	resp := &doppelv1.ListAlertsResponse{}
	resp.Alerts, resp.NextPageToken = p.result()
	return resp, nil
}

func isHex(s string) bool {
	for i := range len(s) {
		c := s[i]
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}
