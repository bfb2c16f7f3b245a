package query_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/doppel-iot/doppel/actors/filter"
	"github.com/doppel-iot/doppel/actors/host"
	"github.com/doppel-iot/doppel/cluster/query"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// together holds answers back until want partitions are asked.
func together(want int) hold {
	var mu sync.Mutex
	asked := make(map[int32]bool)
	all := make(chan struct{})
	return func(ctx context.Context, p int32) error {
		mu.Lock()
		if asked[p] = true; len(asked) == want {
			close(all)
			want = 0 // once
		}
		mu.Unlock()
		select {
		case <-all:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// TestPartitionsAreReadAbreast: a partition that waits for the log does not keep the others of its node
// from being asked, here and elsewhere.
func TestPartitionsAreReadAbreast(t *testing.T) {
	w := newWorld(t, 2, nil)
	ids := w.devices(20)
	n := w.nodes[0]
	for what, ask := range map[string]func(ctx context.Context) error{
		"scan": func(ctx context.Context) error {
			twins := 0
			err := n.reader.EachTwin(ctx, filter.Filter{}, func(*doppelv1.Twin) bool { twins++; return true })
			if twins != len(ids) && err == nil {
				err = fmt.Errorf("%d twins, want %d", twins, len(ids))
			}
			return err
		},
		"twins": func(ctx context.Context) error {
			twins, err := n.reader.Twins(ctx, ids)
			if len(twins) != len(ids) && err == nil {
				err = fmt.Errorf("%d twins, want %d", len(twins), len(ids))
			}
			return err
		},
		"alerts": func(ctx context.Context) error { _, err := n.reader.Alerts(ctx); return err },
		"alert": func(ctx context.Context) error {
			if _, err := n.reader.Alert(ctx, "00000000000000aa"); !errors.Is(err, host.ErrUnknownAlert) {
				return fmt.Errorf("no alert: %w", err)
			}
			return nil
		},
	} {
		t.Run(what, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			for _, n := range w.nodes {
				wait := together(partitions / len(w.nodes))
				n.hold.Store(&wait)
				defer n.hold.Store(nil)
			}
			if err := ask(ctx); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestPartitionThatHangs: a question that nobody answers in time ends before its deadline, and says which
// partition it was.
func TestPartitionThatHangs(t *testing.T) {
	w := newWorld(t, 2, nil)
	w.devices(20)
	n := w.nodes[0]
	const hangs = 2
	for i, where := range []string{"here", "elsewhere"} {
		w.move(hangs, i)
		wait := hold(func(ctx context.Context, p int32) error {
			if p != hangs {
				return nil
			}
			<-ctx.Done()
			return ctx.Err()
		})
		w.nodes[i].hold.Store(&wait)
		cfg := n.config()
		cfg.Patience = time.Minute
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		seen := 0
		err := query.New(cfg).EachTwin(ctx, filter.Filter{}, func(*doppelv1.Twin) bool { seen++; return true })
		if !errors.Is(err, context.DeadlineExceeded) || !strings.HasPrefix(err.Error(), "partition 2 ") || seen == 0 {
			t.Errorf("%s: %d twins, %v; want the deadline, partition 2, and the twins of others", where, seen, err)
		}
		cancel()
		w.nodes[i].hold.Store(nil)
	}
	w.move(hangs, 0)
	wait := hold(func(ctx context.Context, p int32) error {
		if p == hangs {
			<-ctx.Done()
		}
		return ctx.Err()
	})
	n.hold.Store(&wait)
	for what, ask := range map[string]func(ctx context.Context) error{
		"list": func(ctx context.Context) error {
			_, err := n.twins.ListTwins(ctx, &doppelv1.ListTwinsRequest{})
			return err
		},
		"alerts": func(ctx context.Context) error {
			_, err := n.alerts.ListAlerts(ctx, &doppelv1.ListAlertsRequest{})
			return err
		},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		if st := status.Convert(ask(ctx)); st.Code() != codes.DeadlineExceeded || !strings.HasPrefix(st.Message(), "partition 2 ") {
			t.Errorf("%s: %v, want DEADLINE_EXCEEDED that names partition 2", what, st)
		}
		cancel()
	}
}
