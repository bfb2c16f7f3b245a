package kafka

import (
	"context"
	"fmt"
	"strconv"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/doppel-iot/doppel/actors/host"
	"github.com/doppel-iot/doppel/cluster/placement"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// headerRedriveOf is the id of the letter that a record of doppel.ingest comes from.
const headerRedriveOf = "redrive-of"

// Redrive sends m to doppel.ingest in place of letter of, and when it is durable there notes in
// doppel.dlq that it was sent. done is called exactly once, from another goroutine, when both are
// durable or one failed. Letters of a device arrive in the order of the calls.
//
// A crash between the two leaves a letter that is sent twice: the twin knows a numbered sample again.
func (l *Letters) Redrive(ctx context.Context, of *doppelv1.DeadLetter, m *host.Message, done func(error)) {
	p := placement.Partition(m.Device, l.c.cfg.Partitions)
	l.c.ingest.append(ctx, p, m, func(err error) {
		if err != nil {
			done(fmt.Errorf("redrive %s: %w", of.GetId(), err))
			return
		}
		// From the producer's goroutine, which must not wait for itself.
		go l.c.out.put(context.WithoutCancel(ctx), l.marker(of, m), "redriven mark", func(err error) {
			if err == nil {
				l.noteRedriven(letterOffset(of.GetId()))
			}
			done(err)
		})
	}, header(headerRedriveOf, of.GetId()))
}

func (l *Letters) marker(of *doppelv1.DeadLetter, m *host.Message) *kgo.Record {
	return &kgo.Record{Topic: l.c.topics.DLQ, Key: m.Device, Headers: []kgo.RecordHeader{
		header(headerRedriven, of.GetId()),
		header("of-attempt", strconv.FormatUint(uint64(of.GetAttempts()), 10)),
		header("node", l.c.cfg.ClientID),
	}}
}
