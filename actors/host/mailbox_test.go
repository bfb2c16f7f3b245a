package host

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestMailboxBounds: number and weight of what waits are bounded, by one batch more at most.
func TestMailboxBounds(t *testing.T) {
	for name, tt := range map[string]struct {
		limit   room
		payload int
		want    int
	}{
		"messages": {room{8, 1 << 20}, 10, 8},
		"bytes":    {room{4096, 1 << 20}, 64 << 10, 16},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMailbox(tt.limit, nil)
			ctx, cancel := context.WithCancel(t.Context())
			cancel() // a push that would wait fails
			msg := []Message{{Payload: make([]byte, tt.payload)}}
			for round := range 2 {
				n := 0
				for m.push(ctx, msg) == nil {
					n++
				}
				if n != tt.want || len(m.msgs) != tt.want {
					t.Errorf("round %d: took %d messages, holds %d, want %d", round, n, len(m.msgs), tt.want)
				}
				m.takeMessages(nil)
			}
		})
	}
}

// TestMailboxSaturation: who has another way waits for a full mailbox as long as its owner gets on, and
// a while longer; those after it do not wait again.
func TestMailboxSaturation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const patience = time.Second
		var released atomic.Int64
		progress := released.Load
		msg := []Message{{}}
		m := newMailbox(room{1, 1 << 20}, nil)
		offer := func() (time.Duration, error) {
			begin := time.Now()
			err := m.offer(t.Context(), msg, patience, progress)
			return time.Since(begin), err
		}
		if took, err := offer(); took != 0 || err != nil {
			t.Errorf("with room: %v after %v", err, took)
		}
		go func() { // released within the first two seconds, not after
			time.Sleep(patience / 2)
			released.Add(1)
			time.Sleep(patience)
			released.Add(1)
		}()
		if took, err := offer(); took != 3*patience || !errors.Is(err, ErrSaturated) {
			t.Errorf("got %v after %v, want saturated after 3 s", err, took)
		}
		if err := m.takes(patience, progress); !errors.Is(err, ErrSaturated) {
			t.Errorf("takes: %v, want saturated", err)
		}
		if took, err := offer(); took != 0 || !errors.Is(err, ErrSaturated) {
			t.Errorf("afterwards: %v after %v, want saturated at once", err, took)
		}
		released.Add(1)
		if err := m.takes(patience, progress); err != nil {
			t.Errorf("takes with progress: %v", err)
		}
		go func() {
			time.Sleep(patience / 2)
			m.takeMessages(nil)
		}()
		if took, err := offer(); took != patience/2 || err != nil {
			t.Errorf("with room after a while: %v after %v", err, took)
		}
	})
}

// TestMailboxIsFair: batches enter in the order they came in, however many look for room.
func TestMailboxIsFair(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMailbox(room{2, 1 << 20}, nil)
		var order []uint64
		for token := range uint64(7) {
			go func() {
				if err := m.push(t.Context(), []Message{{Token: token}}); err != nil {
					t.Error(err)
				}
			}()
			synctest.Wait()
		}
		for range 4 {
			for _, msg := range m.takeMessages(nil) {
				order = append(order, msg.Token)
			}
			synctest.Wait()
		}
		if want := []uint64{0, 1, 2, 3, 4, 5, 6}; !slices.Equal(order, want) {
			t.Errorf("taken in the order %v, want %v", order, want)
		}
		for range 2 {
			go func() { _ = m.push(t.Context(), []Message{{}, {}}) }()
			synctest.Wait()
		}
		var refused error
		go func() { refused = m.push(t.Context(), []Message{{}}) }()
		synctest.Wait()
		if left := m.shutOut(); len(left) != 2 {
			t.Errorf("%d messages left in a mailbox that is shut, want 2", len(left))
		}
		synctest.Wait()
		if !errors.Is(refused, ErrClosed) {
			t.Errorf("a batch that waited got %v, want closed", refused)
		}
	})
}
