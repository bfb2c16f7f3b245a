package api

import (
	"context"
	"unicode/utf8"

	"github.com/doppel-iot/doppel/gateway/auth"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// maxComment bounds what people say of an alert, in bytes.
const maxComment = 1024

// AlertDesk is what people do with single alerts.
type AlertDesk interface {
	// Acknowledge notes that somebody looks after an alert of a device, and returns it as it is then, when that
	// is durable. host.ErrUnknownAlert, host.ErrAlertResolved.
	Acknowledge(ctx context.Context, device, id, by, comment string) (*doppelv1.Alert, error)
	// Explain tells it again from the log. host.ErrUnknownAlert, host.ErrNotRetained.
	Explain(ctx context.Context, device, id string) (*doppelv1.ExplainAlertResponse, error)
}

// AcknowledgeAlert notes that the caller looks after an alert. The same again changes nothing.
func (s *alertService) AcknowledgeAlert(ctx context.Context, req *doppelv1.AcknowledgeAlertRequest) (*doppelv1.Alert, error) {
	if s.desk == nil {
		return s.UnimplementedAlertServiceServer.AcknowledgeAlert(ctx, req)
	}
	switch {
	case len(req.GetComment()) > maxComment:
		return nil, invalid("comment", "is %d bytes long: at most %d", len(req.GetComment()), maxComment)
	case !utf8.ValidString(req.GetComment()):
		return nil, invalid("comment", "is not UTF-8")
	}
	a, err := s.find(ctx, req.GetId())
	if err != nil {
		return nil, err
	}
	return s.desk.Acknowledge(ctx, a.GetDevice(), a.GetId(), auth.Name(ctx), req.GetComment())
}

// ExplainAlert recomputes an alert from the log and shows the readings behind it.
func (s *alertService) ExplainAlert(ctx context.Context, req *doppelv1.ExplainAlertRequest) (*doppelv1.ExplainAlertResponse, error) {
	if s.desk == nil {
		return s.UnimplementedAlertServiceServer.ExplainAlert(ctx, req)
	}
	a, err := s.find(ctx, req.GetId())
	if err != nil {
		return nil, err
	}
	return s.desk.Explain(ctx, a.GetDevice(), a.GetId())
}

// find is the alert of an id in a request.
func (s *alertService) find(ctx context.Context, id string) (*doppelv1.Alert, error) {
	if err := checkAlert(id); err != nil {
		return nil, err
	}
	return s.alerts.Alert(ctx, id)
}

func checkAlert(id string) error {
	switch {
	case id == "":
		return invalid("id", "is required: the id of an alert, 16 hex digits")
	case len(id) != 16 || !isHex(id):
		return invalid("id", "%q is not an alert id: want 16 hex digits", shorten(id))
	}
	return nil
}
