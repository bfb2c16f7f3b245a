package router_test

import (
	"context"
	"errors"
	"maps"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/doppel-iot/doppel/actors/host"
	"github.com/doppel-iot/doppel/cluster/router"
)

// ingest takes messages and makes them durable when told to.
type ingest struct {
	auto atomic.Bool // at once

	mu   sync.Mutex
	got  []string
	open []func(error)
}

// Append implements router.Ingest.
func (in *ingest) Append(_ context.Context, _ int32, m *host.Message, done func(error)) {
	in.mu.Lock()
	in.got = append(in.got, string(m.Payload))
	in.open = append(in.open, done)
	in.mu.Unlock()
	if in.auto.Load() {
		go in.settle(nil)
	}
}

// settle answers everything that is open.
func (in *ingest) settle(err error) {
	in.mu.Lock()
	open := in.open
	in.open = nil
	in.mu.Unlock()
	for _, done := range open {
		done(err)
	}
}

func (in *ingest) payloads() []string {
	in.mu.Lock()
	defer in.mu.Unlock()
	return slices.Clone(in.got)
}

// owners are partitions that can be shut and blocked, with the errors of a host.
type owners struct {
	mu    sync.Mutex
	err   error // of Offer and Takes
	state host.PartitionState
	got   []string
}

func (o *owners) set(state host.PartitionState, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.state, o.err = state, err
}

func (o *owners) payloads() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.got)
}

// Push implements router.Owners.
func (o *owners) Push(context.Context, int32, []host.Message) error {
	return errors.New("not to be used")
}

// Offer implements router.Owners.
func (o *owners) Offer(_ context.Context, _ int32, msgs []host.Message, _ time.Duration) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	for i := range msgs {
		if o.err == nil {
			o.got = append(o.got, string(msgs[i].Payload))
		}
	}
	return o.err
}

// Takes implements router.Owners.
func (o *owners) Takes(int32, time.Duration) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.err
}

// Partition implements router.Owners.
func (o *owners) Partition(int32) host.View {
	o.mu.Lock()
	defer o.mu.Unlock()
	return host.View{State: o.state}
}

func slowCounts(r *router.Router) map[string]uint64 {
	counts := make(map[string]uint64)
	r.Stats().Slow(func(reason string, n uint64) {
		if n > 0 {
			counts[reason] = n
		}
	})
	return counts
}

func numbered(v *verdicts, from, n int) []host.Message {
	msgs := make([]host.Message, n)
	for i := range msgs {
		msgs[i] = telemetry(v, uint64(from+i), "d", strconv.Itoa(from+i))
	}
	return msgs
}

// TestSlowPath: while the owner takes nothing, messages are acknowledged once doppel.ingest has them,
// and counted by the reason; what it does not take stays with the door.
func TestSlowPath(t *testing.T) {
	for _, tt := range []struct {
		state host.PartitionState
		err   error
		want  string
	}{
		{host.Serving, host.ErrSaturated, "saturated"},
		{host.Idle, host.ErrUnavailable, "down"},
		{host.Claiming, host.ErrUnavailable, "restoring"},
		{host.Restoring, host.ErrUnavailable, "restoring"},
	} {
		t.Run(string(tt.state), func(t *testing.T) {
			in, o := &ingest{}, &owners{state: tt.state, err: tt.err}
			r := router.New(router.Config{Owners: o, Partitions: partitions, Ingest: in})
			v := &verdicts{got: make(map[uint64]host.Verdict)}
			if err := r.Deliver(t.Context(), numbered(v, 1, 3)); err != nil {
				t.Fatal(err)
			}
			if len(v.got) != 0 || r.Stats().Waiting() != 3 {
				t.Errorf("verdicts %v, %d waiting before anything is durable", v.got, r.Stats().Waiting())
			}
			in.settle(nil)
			if err := r.Deliver(t.Context(), numbered(v, 4, 1)); err != nil {
				t.Fatal(err)
			}
			in.settle(errors.New("the log is away"))
			want := map[uint64]host.Verdict{1: host.Released, 2: host.Released, 3: host.Released, 4: host.Busy}
			if diff := cmp.Diff(want, v.got); diff != "" {
				t.Errorf("verdicts (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(map[string]uint64{tt.want: 3}, slowCounts(r)); diff != "" {
				t.Errorf("counted (-want +got):\n%s", diff)
			}
			if r.Stats().Failed() != 1 || r.Stats().Waiting() != 0 {
				t.Errorf("%d failed, %d waiting, want 1 and 0", r.Stats().Failed(), r.Stats().Waiting())
			}
		})
	}
}

// TestSlowPathIsBounded: a log that makes nothing durable blocks the door after a window of messages,
// or of bytes, and lets it go with its connection.
func TestSlowPathIsBounded(t *testing.T) {
	for name, cfg := range map[string]router.Config{"messages": {Window: 10}, "bytes": {WindowBytes: 10 * 3}} {
		t.Run(name, func(t *testing.T) {
			in, o := &ingest{}, &owners{state: host.Idle, err: host.ErrUnavailable}
			cfg.Owners, cfg.Partitions, cfg.Ingest = o, partitions, in
			r := router.New(cfg)
			v := &verdicts{got: make(map[uint64]host.Verdict)}
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- r.Deliver(ctx, numbered(v, 10, 25)) }() // 3 bytes each
			eventually(t, "the window is full", func() bool { return r.Stats().Waiting() == 10 })
			in.settle(nil)
			eventually(t, "the window is full again", func() bool { return len(in.payloads()) == 20 })
			cancel()
			if err := <-done; !errors.Is(err, context.Canceled) && !errors.Is(err, host.ErrUnavailable) {
				t.Errorf("error %v", err)
			}
			in.settle(nil)
			counts := make(map[host.Verdict]int)
			for _, got := range v.got {
				counts[got]++
			}
			if diff := cmp.Diff(map[host.Verdict]int{host.Released: 20, host.Busy: 5}, counts); diff != "" {
				t.Errorf("verdicts (-want +got):\n%s", diff)
			}
		})
	}
}

// TestNoNeedlessOvertaking: the first message that may go to the owner again waits until those on the
// slow path are durable; but not for ever.
func TestNoNeedlessOvertaking(t *testing.T) {
	in, o := &ingest{}, &owners{state: host.Restoring, err: host.ErrUnavailable}
	r := router.New(router.Config{Owners: o, Partitions: partitions, Ingest: in})
	v := &verdicts{got: make(map[uint64]host.Verdict)}
	deliver := func(from, n int) chan error {
		done := make(chan error, 1)
		go func() { done <- r.Deliver(t.Context(), numbered(v, from, n)) }()
		return done
	}
	if err := <-deliver(1, 2); err != nil {
		t.Fatal(err)
	}
	o.set(host.Serving, nil)
	third := deliver(3, 1)
	for range 20 { // it has every opportunity to overtake
		runtime.Gosched()
	}
	select {
	case <-third:
		t.Fatal("a message overtook those on the slow path")
	case <-time.After(100 * time.Millisecond):
	}
	in.settle(nil)
	if err := <-third; err != nil {
		t.Fatal(err)
	}
	o.set(host.Restoring, host.ErrUnavailable)
	if err := <-deliver(4, 1); err != nil {
		t.Fatal(err)
	}
	o.set(host.Serving, nil)
	for i := range 2 { // 4 hangs: the first waits in vain, the next not at all
		begin := time.Now()
		if err := <-deliver(5+i, 1); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begin); i == 0 && took < 500*time.Millisecond || i == 1 && took > 500*time.Millisecond {
			t.Errorf("message %d waited %v", 5+i, took)
		}
	}
	if diff := cmp.Diff([]string{"3", "5", "6"}, o.payloads()); diff != "" {
		t.Errorf("by the fast path (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"1", "2", "4"}, in.payloads()); diff != "" {
		t.Errorf("by the slow path (-want +got):\n%s", diff)
	}
}

// TestSaturation: an owner whose log takes nothing is gone round after a while; one that is only slow
// holds the door back, and nothing goes round it.
func TestSaturation(t *testing.T) {
	for name, standstill := range map[string]bool{"stands still": true, "is slow": false} {
		t.Run(name, func(t *testing.T) {
			log := openLog(t)
			gate := make(chan struct{})
			n := start(t, log, func(c *host.Config) {
				c.Mailbox, c.InFlight = 8, 4
				c.Changelog = &gated{Log: c.Changelog, gate: gate}
			})
			in := &ingest{}
			in.auto.Store(true)
			const patience = 300 * time.Millisecond
			r := router.New(router.Config{Owners: n.host, Partitions: partitions, Ingest: in, Patience: patience})
			v := &verdicts{got: make(map[uint64]host.Verdict)}
			const messages = 60
			delivered := make(chan error, 1)
			go func() {
				for i := range messages {
					if err := r.Deliver(t.Context(), []host.Message{telemetry(v, uint64(i+1), "d", sample(i+1))}); err != nil {
						delivered <- err
						return
					}
				}
				delivered <- nil
			}()
			if standstill {
				eventually(t, "messages go round", func() bool { return slowCounts(r)["saturated"] > 0 })
				close(gate)
			} else { // one append at a time, each well within patience
				go func() {
					for range messages {
						select {
						case gate <- struct{}{}:
							time.Sleep(patience / 6)
						case <-t.Context().Done():
							return
						}
					}
					close(gate)
				}()
			}
			if err := <-delivered; err != nil {
				t.Fatal(err)
			}
			eventually(t, "every message is released", func() bool { return v.released() == messages })
			counts := slowCounts(r)
			if !standstill && len(counts) != 0 {
				t.Errorf("slow path %v: a busy partition is to slow its source down", counts)
			}
			if keys := slices.Collect(maps.Keys(counts)); standstill && !slices.Equal(keys, []string{"saturated"}) {
				t.Errorf("slow path %v, want saturated only", counts)
			}
		})
	}
}

// gated is a log each of whose appends but the claims needs leave.
type gated struct {
	host.Log
	gate chan struct{}
}

// Append implements host.Log.
func (g *gated) Append(ctx context.Context, p int32, recs []host.Record, acks host.Acks) {
	if recs[0].N > 0 {
		select {
		case <-g.gate:
		case <-ctx.Done():
		}
	}
	g.Log.Append(ctx, p, recs, acks)
}
