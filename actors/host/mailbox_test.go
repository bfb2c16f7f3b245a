package host

import (
	"context"
	"errors"
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
			m := newMailbox(tt.limit)
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
		var released int64
		progress := func() int64 { return released }
		msg := []Message{{}}
		m := newMailbox(room{1, 1 << 20})
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
			released++
			time.Sleep(patience)
			released++
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
		released++
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
