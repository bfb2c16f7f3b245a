package questdb

import (
	"context"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/doppel-iot/doppel/actors/host"
	"github.com/doppel-iot/doppel/storage/kafka"
)

// TestCatchUpFromTheEmbeddedLog reads what a node wrote before QuestDB was there.
func TestCatchUpFromTheEmbeddedLog(t *testing.T) {
	db := database(t)
	embedded, err := kafka.OpenEmbedded(kafka.EmbeddedConfig{Addr: "127.0.0.1:0", DataDir: t.TempDir(), Logger: testLogger(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { embedded.Close() })
	client, err := kafka.Open(t.Context(), kafka.Config{Brokers: []string{embedded.Addr()}, Embedded: true, Logger: testLogger(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })

	// The records are those of a testLog, claims and all.
	l := newTestLog()
	const perEpoch = 2500
	for epoch := range 2 {
		l.claim()
		for i := 1; i <= perEpoch; i++ {
			l.event("d", sample(epoch*perEpoch+i, "m", 1.0))
		}
	}
	var recs []host.Record
	for i, r := range l.records {
		rec := host.Record{N: uint64(i), Value: r.Value}
		if len(r.Key) > 0 {
			rec.Key = r.Key
		}
		recs = append(recs, rec)
	}
	acks := &countAcks{}
	acks.Add(len(recs))
	client.Changelog().Append(t.Context(), onlyPartition, recs, acks)
	acks.Wait()

	cfg := Config{URL: serverURL(t), FlushInterval: 20 * time.Millisecond, FlushRows: 1000}
	w, err := New(cfg, client.Changelog(), NewFileCursors(filepath.Join(t.TempDir(), "c"), ""), client.DeadLetters(), testLogger(t))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	w.Offer(l.idle())
	want(t, db, "SELECT count(), count_distinct(seq) FROM telemetry", "[[5000 5000]]")
	if got := w.Stats().Void.Load(); got != 0 {
		t.Errorf("%d void records, want none", got)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("run: %v", err)
	}
}

type countAcks struct{ sync.WaitGroup }

// Ack implements host.Acks.
func (a *countAcks) Ack(uint64, int64, error) { a.Done() }
