package api

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/doppel-iot/doppel/actors/selection"
	"github.com/doppel-iot/doppel/gateway/auth"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// silenceMost is the longest a silence lasts.
const silenceMost = 366 * 24 * time.Hour

// SilenceAlerts keeps people from being notified of alerts that match a filter, for some time.
func (s *alertService) SilenceAlerts(ctx context.Context, req *doppelv1.SilenceAlertsRequest) (*doppelv1.Silence, error) {
	if s.rules == nil {
		return s.UnimplementedAlertServiceServer.SilenceAlerts(ctx, req)
	}
	d := req.GetDuration()
	switch {
	case d == nil:
		return nil, invalid("duration", "is required: for how long, such as \"7200s\"")
	case d.CheckValid() != nil:
		return nil, invalid("duration", "it is no duration: write one such as \"7200s\"")
	case d.AsDuration() <= 0, d.AsDuration() > silenceMost:
		return nil, invalid("duration", "%v: want more than 0 and at most %d days", d.AsDuration(), int(silenceMost.Hours()/24))
	case len(req.GetComment()) > maxComment:
		return nil, invalid("comment", "is %d bytes long: want at most %d", len(req.GetComment()), maxComment)
	}
	if _, err := s.silencer.Match(req.GetFilter()); err != nil {
		return nil, asViolation(err)
	}
	now, by := time.Now(), auth.Name(ctx)
	silence := &doppelv1.Silence{
		Id: newID(), Filter: req.GetFilter(), CreateTime: timestamppb.New(now), EndTime: timestamppb.New(now.Add(d.AsDuration())),
		CreatedBy: by, Comment: req.GetComment(),
	}
	resp, err := s.rules.WriteRules(ctx, &doppelv1.WriteRulesRequest{Write: &doppelv1.WriteRulesRequest_Silence{Silence: silence}, By: by})
	if err != nil {
		return nil, asViolation(err)
	}
	return resp.GetSilence(), nil
}

// ListSilences returns one page of the silences that have not ended, by id.
func (s *alertService) ListSilences(ctx context.Context, req *doppelv1.ListSilencesRequest) (*doppelv1.ListSilencesResponse, error) {
	if s.rules == nil {
		return s.UnimplementedAlertServiceServer.ListSilences(ctx, req)
	}
	p, err := newPage[*doppelv1.Silence](selection.Order{}, "silences", req.GetPageSize(), req.GetPageToken())
	if err != nil {
		return nil, err
	}
	silences, err := s.rules.Silences(ctx)
	if err != nil {
		return nil, err
	}
	for _, one := range silences {
		p.add(one, one.GetId())
	}
	resp := &doppelv1.ListSilencesResponse{}
	resp.Silences, resp.NextPageToken = p.result()
	return resp, nil
}

// ExpireSilence ends a silence now.
func (s *alertService) ExpireSilence(ctx context.Context, req *doppelv1.ExpireSilenceRequest) (*doppelv1.Silence, error) {
	if s.rules == nil {
		return s.UnimplementedAlertServiceServer.ExpireSilence(ctx, req)
	}
	switch id := req.GetId(); {
	case id == "":
		return nil, invalid("id", "is required: the id of a silence, 16 hex digits")
	case len(id) != 16 || !isHex(id):
		return nil, invalid("id", "%q is not the id of a silence: want 16 hex digits", shorten(id))
	}
	resp, err := s.rules.WriteRules(ctx, &doppelv1.WriteRulesRequest{Write: &doppelv1.WriteRulesRequest_Expire{Expire: req.GetId()}, By: auth.Name(ctx)})
	if err != nil {
		return nil, err
	}
	return resp.GetSilence(), nil
}

// newID is 16 hex digits that nobody else has.
func newID() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}
