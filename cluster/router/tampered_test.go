package router_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/doppel-iot/doppel/actors/codec"
	"github.com/doppel-iot/doppel/actors/host"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// tampered is a changelog that reads otherwise than it was written: what edit makes of a record, and
// nothing below start, as if retention had removed it. It keeps account of that, as Retention.
type tampered struct {
	host.Log
	edit  atomic.Pointer[func(key string, e *doppelv1.TwinEvent) bool] // true: it was changed
	start atomic.Int64
}

func (l *tampered) Bounds(ctx context.Context, p int32) (start, end int64, err error) {
	start, end, err = l.Log.Bounds(ctx, p)
	return max(start, min(l.start.Load(), end)), end, err
}

func (l *tampered) Read(ctx context.Context, p int32, from, to int64, fn func(host.LogRecord) error) error {
	if from < l.start.Load() {
		return fmt.Errorf("offset %d is gone", from)
	}
	return l.Log.Read(ctx, p, from, to, func(r host.LogRecord) error {
		if edit := l.edit.Load(); edit != nil {
			var e doppelv1.TwinEvent
			if err := proto.Unmarshal(r.Value, &e); err != nil {
				return err
			}
			if (*edit)(string(r.Key), &e) {
				var err error
				if r.Value, err = proto.Marshal(&e); err != nil {
					return err
				}
			}
		}
		return fn(r)
	})
}

// Needs implements host.Retention.
func (*tampered) Needs(int32, host.Needs) {}

// Oldest implements host.Retention.
func (l *tampered) Oldest(p int32) (host.Cursor, bool) {
	var v host.Validator
	var dec codec.EventDecoder
	var e codec.Event
	if l.start.Load() == 0 {
		return host.Cursor{}, false
	}
	err := l.Log.Read(context.Background(), p, 0, l.start.Load(), func(r host.LogRecord) error {
		v.Valid(r.Offset, &e, dec.Decode(r.Value, &e))
		return nil
	})
	return v.Cursor, err == nil
}

// startTampered starts a node on a changelog that can be tampered with.
func startTampered(t *testing.T, log interface{ Addr() string }, change ...func(*host.Config)) (*node, *tampered) {
	t.Helper()
	l := &tampered{}
	n := start(t, log, func(c *host.Config) {
		l.Log = c.Changelog
		c.Changelog, c.Retention = l, l
		for _, f := range change {
			f(c)
		}
	})
	return n, l
}
