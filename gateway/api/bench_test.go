package api

import (
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/doppel-iot/doppel/actors/alert"
	"github.com/doppel-iot/doppel/actors/codec"
	"github.com/doppel-iot/doppel/gateway/api/apitest"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// What a transition costs who tells it, and how long until the last of many subscribers has it.
func BenchmarkTransition(b *testing.B) {
	for _, subs := range []int{0, 1, 1000} {
		b.Run(fmt.Sprintf("watchers=%d", subs), func(b *testing.B) {
			l := &apitest.AlertLog{}
			h := NewHub(HubConfig{Alerts: l})
			f := apitest.NewFleet(h, l)
			run(b, h)
			a, err := New(Config{Twins: f, Alerts: f, Fleet: f, Hub: h, Log: slog.New(slog.DiscardHandler)})
			if err != nil {
				b.Fatal(err)
			}
			var got, ended sync.WaitGroup
			got.Add(subs)
			for range subs {
				ended.Go(func() {
					_ = a.WatchAlerts(b.Context(), &doppelv1.WatchAlertsRequest{}, func(*doppelv1.WatchAlertsResponse) error {
						got.Done()
						return nil
					})
				})
			}
			got.Wait() // snapshot_done
			a1 := alert.Alert{ID: 1, Rule: "builtin.zscore", State: alert.Firing}
			tr := transition{at: nowhere, alert: codec.Alert("device-1", &a1)}
			var spent time.Duration
			b.ReportAllocs()
			for b.Loop() {
				got.Add(subs)
				tr.at.offset++
				tr.next++
				start := time.Now()
				h.transitions.add(tr)
				spent += time.Since(start)
				got.Wait()
			}
			b.ReportMetric(float64(spent.Nanoseconds())/float64(b.N), "ns-tail/op")
			h.Close()
			ended.Wait()
		})
	}
}

func BenchmarkTwinChanged(b *testing.B) {
	for _, subs := range []int{0, 1, 100} {
		b.Run(fmt.Sprintf("watchers=%d", subs), func(b *testing.B) {
			h := NewHub(HubConfig{})
			defer h.Close()
			ids := make([]string, 10_000)
			for i := range ids {
				ids[i] = fmt.Sprintf("device-%05d", i)
			}
			for range subs {
				h.changes.armAll(newWaiter())
			}
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				h.TwinChanged(0, ids[i%len(ids)], 1)
				i++
			}
		})
	}
}
