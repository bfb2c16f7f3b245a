package oracle

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// alarm is the beginning of a firing alert of this run, at the sample that caused it.
type alarm struct {
	device, metric string
	seq            uint64
}

// alertWatch is a subscriber of WatchAlerts for the time of the run.
type alertWatch struct {
	boot   uint64
	ledger *ledger
	log    *slog.Logger

	mu      sync.Mutex
	fired   map[string]bool // alert ids
	alarms  []alarm
	latency *hdrhistogram.Histogram // publish → transition here, µs
}

func newAlertWatch(boot uint64, l *ledger, log *slog.Logger) *alertWatch {
	return &alertWatch{boot: boot, ledger: l, log: log, fired: make(map[string]bool), latency: hdrhistogram.New(1, 600e6, 2)}
}

// open subscribes and reads up to the end of the snapshot, so that no transition of the run can be
// missed.
func (w *alertWatch) open(ctx context.Context, client doppelv1.AlertServiceClient) (doppelv1.AlertService_WatchAlertsClient, error) {
	stream, err := client.WatchAlerts(ctx, &doppelv1.WatchAlertsRequest{})
	if err != nil {
		return nil, fmt.Errorf("watch alerts: %w", err)
	}
	for {
		m, err := stream.Recv()
		if err != nil {
			return nil, fmt.Errorf("watch alerts: %w", err)
		}
		if m.GetSnapshotDone() != nil {
			return stream, nil
		}
		if a := m.GetSnapshot(); a != nil {
			w.fired[a.GetId()] = true // open before the run, whatever still becomes of it
		}
	}
}

// run takes transitions until ctx ends; a broken stream is opened again with its token.
func (w *alertWatch) run(ctx context.Context, client doppelv1.AlertServiceClient, stream doppelv1.AlertService_WatchAlertsClient) {
	token := ""
	for ctx.Err() == nil {
		m, err := stream.Recv()
		if err == nil {
			token = m.GetResumeToken()
			w.take(m, time.Now())
			continue
		}
		if ctx.Err() != nil {
			return
		}
		w.log.Warn("alert stream broke", "error", err)
		for {
			select { // a node that restarts takes the call and ends the stream at once
			case <-ctx.Done():
				return
			case <-time.After(200 * time.Millisecond):
			}
			if stream, err = client.WatchAlerts(ctx, &doppelv1.WatchAlertsRequest{ResumeToken: token}); err == nil {
				break
			}
		}
	}
}

func (w *alertWatch) take(m *doppelv1.WatchAlertsResponse, at time.Time) {
	a, live := m.GetTransition(), true
	if a == nil {
		// A snapshot after a gap still says what fired, though not when we could have known.
		a, live = m.GetSnapshot(), false
	}
	// Alerts without a metric come from timers; no sample caused them.
	if a == nil || a.GetMetric() == "" || a.GetBoot() != w.boot {
		return
	}
	sent, ours := w.ledger.sentAt(a.GetDevice(), a.GetSeq())
	if !ours {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if live {
		_ = w.latency.RecordValue(min(max(at.Sub(sent).Microseconds(), 1), 600e6))
	}
	if a.GetState() == doppelv1.AlertState_FIRING && !w.fired[a.GetId()] {
		w.fired[a.GetId()] = true
		w.alarms = append(w.alarms, alarm{device: a.GetDevice(), metric: a.GetMetric(), seq: a.GetSeq()})
	}
}

func (w *alertWatch) seen() []alarm {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]alarm(nil), w.alarms...)
}
