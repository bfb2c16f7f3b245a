package oracle

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// tail follows doppel.telemetry and doppel.dlq from where they ended when it was opened.
type tail struct {
	client    *kgo.Client
	telemetry string
	dlq       string
	ledger    *ledger
	log       *slog.Logger

	mu         sync.Mutex // guards changelog and unreadable
	changelog  *changelog
	unreadable uint64
}

// openTail notes the end offsets and opens the consumer; run consumes.
func openTail(ctx context.Context, seeds []string, secure *tls.Config, prefix string, c *changelog, l *ledger, log *slog.Logger) (*tail, error) {
	t := &tail{telemetry: prefix + "telemetry", dlq: prefix + "dlq", ledger: l, changelog: c, log: log}
	to := []kgo.Opt{kgo.SeedBrokers(seeds...)}
	if secure != nil {
		to = append(to, kgo.DialTLSConfig(secure))
	}
	probe, err := kgo.NewClient(to...)
	if err != nil {
		return nil, fmt.Errorf("kafka: %w", err)
	}
	defer probe.Close()
	ends, err := kadm.NewClient(probe).ListEndOffsets(ctx, t.telemetry, t.dlq)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("kafka: end offsets: %w", err)
	}
	from := make(map[string]map[int32]kgo.Offset)
	ends.Each(func(o kadm.ListedOffset) {
		if from[o.Topic] == nil {
			from[o.Topic] = make(map[int32]kgo.Offset)
		}
		from[o.Topic][o.Partition] = kgo.NewOffset().At(o.Offset)
	})
	t.client, err = kgo.NewClient(append(to, kgo.ConsumePartitions(from), kgo.FetchMaxWait(100*time.Millisecond))...)
	if err != nil {
		return nil, fmt.Errorf("kafka: %w", err)
	}
	return t, nil
}

// run consumes until ctx ends.
func (t *tail) run(ctx context.Context) {
	defer t.client.Close()
	for {
		fetches := t.client.PollFetches(ctx)
		if ctx.Err() != nil {
			return
		}
		fetches.EachError(func(topic string, p int32, err error) {
			t.log.Warn("fetch failed", "topic", topic, "partition", p, "error", err)
		})
		at := time.Now()
		t.mu.Lock()
		fetches.EachRecord(func(r *kgo.Record) { t.take(r, at) })
		t.mu.Unlock()
	}
}

func (t *tail) take(r *kgo.Record, at time.Time) {
	if r.Topic == t.dlq {
		t.ledger.foundPoison(r.Value)
		return
	}
	var e doppelv1.TwinEvent
	if err := proto.Unmarshal(r.Value, &e); err != nil {
		t.unreadable++
		return
	}
	t.changelog.record(r.Partition, r.Offset, string(r.Key), &e, at)
}

// settle waits until all that was acknowledged has been seen, or limit has passed.
func (t *tail) settle(ctx context.Context, devices []Device, limit time.Duration) {
	poll(ctx, limit, func() bool {
		sent, found := t.ledger.poisonAccount()
		t.mu.Lock()
		defer t.mu.Unlock()
		return found >= sent && t.changelog.complete(devices)
	})
}

// judge compares the log with what was sent.
func (t *tail) judge(devices []Device, poisonUnacked int) *account {
	t.mu.Lock()
	defer t.mu.Unlock()
	a := t.changelog.judge(devices)
	if sent, found := t.ledger.poisonAccount(); found+poisonUnacked < sent {
		a.add(Finding{
			Fault: Poison, Count: uint64(sent - found),
			Detail: fmt.Sprintf("%d broken messages acknowledged, %d in %s", sent-poisonUnacked, found, t.dlq),
		})
	}
	return a
}

// poll calls done until it is true, limit has passed or ctx ends.
func poll(ctx context.Context, limit time.Duration, done func() bool) {
	deadline := time.Now().Add(limit)
	for !done() {
		if time.Now().After(deadline) {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(100 * time.Millisecond):
		}
	}
}
