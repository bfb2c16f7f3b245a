package kafka

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/doppel-iot/doppel/actors/host"
)

// What is older than its topic keeps goes, telemetry and the last record stay.
func TestExpire(t *testing.T) {
	dir := t.TempDir()
	e, err := OpenEmbedded(EmbeddedConfig{Addr: "127.0.0.1:0", DataDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	c, err := Open(t.Context(), Config{Brokers: []string{e.Addr()}, Embedded: true, Partitions: 2})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	put := func(topic string, p int32, age time.Duration) {
		t.Helper()
		r := &kgo.Record{Topic: topic, Partition: p, Value: []byte("v"), Timestamp: now.Add(-age)}
		if err := c.Producer().ProduceSync(t.Context(), r).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	n := c.Topics()
	for _, topic := range []string{n.Ingest, n.Alerts, n.Telemetry, n.State} {
		put(topic, 0, 40*day)
		put(topic, 0, 8*day)
		put(topic, 0, 6*day)
		put(topic, 1, 40*day)
		put(topic, 1, 39*day)
	}
	bounds := func(topic string, p int32, wantStart, wantEnd int64) {
		t.Helper()
		start, err1 := c.offset(t.Context(), topic, p, listStart)
		end, err2 := c.offset(t.Context(), topic, p, listEnd)
		if err := errors.Join(err1, err2); err != nil {
			t.Fatal(err)
		}
		if start != wantStart || end != wantEnd {
			t.Errorf("%s p%d: got [%d,%d), want [%d,%d)", topic, p, start, end, wantStart, wantEnd)
		}
	}
	if err := c.expire(t.Context(), now); err != nil {
		t.Fatal(err)
	}
	bounds(n.Ingest, 0, 0, 3) // not handled, for all that is known
	c.Needs(0, host.Needs{Ingest: 3})
	c.Needs(1, host.Needs{Ingest: 2})
	if err := c.expire(t.Context(), now); err != nil {
		t.Fatal(err)
	}
	bounds(n.Ingest, 0, 2, 3)
	bounds(n.Ingest, 1, 1, 2) // all too old: the last one stays
	bounds(n.Alerts, 0, 1, 3)
	bounds(n.Telemetry, 0, 0, 3)
	bounds(n.State, 0, 0, 3)
	bounds(n.DLQ, 0, 0, 0)

	if err := c.Changelog().Trim(t.Context(), 0, 1); err != nil {
		t.Fatal(err)
	}
	bounds(n.Telemetry, 0, 1, 3)
	for _, before := range []int64{0, 1} { // nothing to do
		if err := c.Changelog().Trim(t.Context(), 0, before); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Changelog().Trim(t.Context(), 0, 99); err != nil {
		t.Fatal(err)
	}
	bounds(n.Telemetry, 0, 2, 3)

	if err := errors.Join(c.Close(), e.Close()); err != nil {
		t.Fatal(err)
	}
	e = embedded(t, dir)
	if c, err = Open(t.Context(), Config{Brokers: []string{e.Addr()}, Embedded: true, Partitions: 2}); err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	bounds(n.Ingest, 1, 1, 2) // offsets go on where they were
	bounds(n.Telemetry, 0, 2, 3)
}

func TestRunEndsWithItsContext(t *testing.T) {
	c := open(t, backends()[0].config(t))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.Run(ctx); err != nil {
		t.Errorf("got error %v, want none: being stopped is none", err)
	}
}
