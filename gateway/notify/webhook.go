package notify

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/doppel-iot/doppel/actors/host"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// webhook makes CloudEvents 1.0 over HTTP, with the attributes that the transition has in doppel.alerts.
type webhook struct {
	cfg    *Sink
	source string
}

// cloudEvent is one in the structured mode.
type cloudEvent struct {
	SpecVersion     string          `json:"specversion"`
	ID              string          `json:"id"`
	Source          string          `json:"source"`
	Type            string          `json:"type"`
	Subject         string          `json:"subject"`
	Time            string          `json:"time"`
	DataContentType string          `json:"datacontenttype"`
	Data            json.RawMessage `json:"data"`
}

var errOneOnly = errors.New("a webhook is told one thing at a time")

func (*webhook) most() int     { return 1 }
func (*webhook) repeats() bool { return false }

func (*webhook) retain([]*doppelv1.Alert) {}

func (*webhook) repeat([]*doppelv1.Alert) (*request, error) { return nil, errOneOnly }

// eventID is the place of a transition in the log, behind the alert's id.
func eventID(p *host.Published) string {
	return fmt.Sprintf("%s/%d:%d:%d", p.Alert.GetId(), p.Partition, p.Offset, p.Index)
}

func (w *webhook) request(events []host.Published) (*request, error) {
	if len(events) != 1 {
		return nil, errOneOnly
	}
	p := &events[0]
	data, err := protojson.MarshalOptions{EmitUnpopulated: true}.Marshal(p.Alert)
	if err != nil {
		return nil, fmt.Errorf("alert as JSON: %w", err)
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, data); err != nil {
		return nil, fmt.Errorf("alert as JSON: %w", err)
	}
	e := cloudEvent{
		SpecVersion: "1.0", ID: eventID(p), Source: w.source, Type: "doppel.v1.alert." + strings.ToLower(p.Alert.GetState().String()),
		Subject: p.Alert.GetDevice(), Time: p.Alert.GetUpdateTime().AsTime().Format(time.RFC3339Nano), DataContentType: "application/json", Data: compact.Bytes(),
	}
	if w.cfg.Mode == "binary" {
		return &request{url: w.cfg.URL, body: e.Data, header: map[string]string{
			"Content-Type": e.DataContentType, "ce-specversion": e.SpecVersion, "ce-id": e.ID, "ce-source": e.Source, "ce-type": e.Type,
			"ce-subject": e.Subject, "ce-time": e.Time,
		}}, nil
	}
	body, err := json.Marshal(e)
	if err != nil {
		return nil, fmt.Errorf("event as JSON: %w", err)
	}
	return &request{url: w.cfg.URL, body: body, header: map[string]string{"Content-Type": "application/cloudevents+json; charset=utf-8"}}, nil
}
