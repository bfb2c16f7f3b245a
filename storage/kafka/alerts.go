package kafka

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"github.com/doppel-iot/doppel/actors/codec"
	"github.com/doppel-iot/doppel/actors/host"
	"github.com/doppel-iot/doppel/cluster/placement"
)

// headerPos is the place of a transition's cause.
const headerPos = "pos"

// AlertLog is doppel.alerts: each transition a doppel.v1.Alert in the binary mode of CloudEvents.
//
// A transition may be there more than once and behind newer ones (protocol.md, E1 and E2). The header
// "pos", partition:offset:index of its cause in the changelog, orders the transitions of an alert;
// ce_source and ce_id are the same for the same transition.
type AlertLog struct{ out *outbox }

var _ host.AlertLog = (*AlertLog)(nil)

// Source names this log in the CloudEvents: the changelog that a transition's cause stands in.
func (a *AlertLog) Source() string { return "urn:doppel:" + a.out.c.topics.Telemetry }

// Publish implements host.AlertLog. It blocks while too many transitions are on their way; when ctx
// ends meanwhile, this one is not written.
func (a *AlertLog) Publish(ctx context.Context, t host.Transition, done func(error)) {
	value, err := proto.Marshal(codec.Alert(t.Device, &t.Alert))
	if err != nil {
		go done(fmt.Errorf("alert: %w", err))
		return
	}
	c := a.out.c
	key := []byte(t.Device)
	pos := fmt.Sprintf("%d:%d:%d", t.Partition, t.Offset, t.Index)
	a.out.put(ctx, &kgo.Record{
		Topic:     c.topics.Alerts,
		Partition: placement.Partition(key, c.cfg.Partitions),
		Key:       key,
		Value:     value,
		Headers: []kgo.RecordHeader{
			header("ce_specversion", "1.0"),
			header("ce_id", codec.AlertID(t.Alert.ID)+"/"+pos),
			header("ce_source", a.Source()),
			header("ce_type", "doppel.v1.alert."+t.Alert.State.String()),
			header("ce_subject", t.Device),
			header("ce_time", timeText(t.Alert.UpdateTime)),
			header("content-type", "application/protobuf"),
			header(headerPos, pos),
		},
	}, "alert", done)
}
