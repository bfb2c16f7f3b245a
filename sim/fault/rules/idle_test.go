package rules

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/doppel-iot/doppel/actors/codec"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// TestAnIdleOwnerReadsWhatOthersWrote: a void record behind an owner with nothing in flight changes
// nothing, a Claim ends its epoch (O7).
func TestAnIdleOwnerReadsWhatOthersWrote(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(2, nil, t.Output())
		defer w.end()
		first := w.boot()
		w.owner = first
		if !w.quietFor() {
			t.Fatal(w.judge.verdict())
		}
		first.crash()
		w.owner = w.boot()
		if !w.quietFor() {
			t.Fatal(w.judge.verdict())
		}
		stale := codec.Event{Kind: doppelv1.EventKind_EVENT_KIND_TICK, Epoch: 0, N: 1, Now: time.Now().UnixNano()}
		value := codec.AppendEvent(nil, &stale)
		w.judge.landed(w.log.append([]byte("d"), value), []byte("d"), value)
		w.wait(10 * time.Second)
		stats := w.owner.host.Stats()
		if got := stats.Fenced.Load(); got != 0 || stats.Void.Load() == 0 {
			t.Errorf("behind a void record: %d epochs ended and %d void records seen, want none ended and it seen", got, stats.Void.Load())
		}
		claim := codec.Event{Kind: doppelv1.EventKind_EVENT_KIND_CLAIM, Now: time.Now().UnixNano(), Claim: &codec.Claim{Node: "other"}}
		value = codec.AppendEvent(nil, &claim)
		w.judge.landed(w.log.append(nil, value), nil, value)
		w.wait(10 * time.Second)
		if got := stats.Fenced.Load(); got == 0 {
			t.Error("a claim behind an idle owner was not noticed")
		}
		if found := w.judge.verdict(); found != "" {
			t.Error(found)
		}
	})
}
