package nodetest

import (
	"context"
	"errors"
	"sync"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Letters follows the node's dead letters.
type Letters struct {
	mu  sync.Mutex
	all []*kgo.Record
}

// Letters reads the dead letters from the beginning, as they come.
func (n *Node) Letters() *Letters {
	n.t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(n.Kafka()), kgo.ConsumeTopics(n.Config.TopicPrefix+"dlq"),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		n.t.Fatal(err)
	}
	l := &Letters{}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			fetches := cl.PollFetches(ctx)
			fetches.EachError(func(topic string, p int32, err error) {
				if !errors.Is(err, context.Canceled) {
					n.t.Errorf("read %s %d: %v", topic, p, err)
				}
			})
			l.mu.Lock()
			l.all = append(l.all, fetches.Records()...)
			l.mu.Unlock()
		}
	}()
	n.t.Cleanup(func() { cancel(); <-done; cl.Close() })
	return l
}

// Of are the letters with key device, oldest first.
func (l *Letters) Of(device string) []*kgo.Record {
	l.mu.Lock()
	defer l.mu.Unlock()
	var of []*kgo.Record
	for _, r := range l.all {
		if string(r.Key) == device {
			of = append(of, r)
		}
	}
	return of
}

// Headers are a record's headers by key.
func Headers(r *kgo.Record) map[string]string {
	m := make(map[string]string, len(r.Headers))
	for _, h := range r.Headers {
		m[h.Key] = string(h.Value)
	}
	return m
}
