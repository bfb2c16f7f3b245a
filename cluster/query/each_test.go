package query

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/doppel-iot/doppel/actors/host"
)

// TestEachIsBounded: as many partitions as may be are read at a time, and no more; one that is not served
// does not end it, and one that fails does.
func TestEachIsBounded(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	var ps []int32
	for p := range int32(3 * abreast) {
		ps = append(ps, p)
	}
	var mu sync.Mutex
	var read []int32
	at, most := 0, 0
	full := make(chan struct{})
	m, err := each(ctx, ps, func(ctx context.Context, p int32) error {
		mu.Lock()
		read = append(read, p)
		if at++; at > most {
			if most = at; most == abreast {
				close(full)
			}
		}
		mu.Unlock()
		defer func() {
			mu.Lock()
			defer mu.Unlock()
			at--
		}()
		select {
		case <-full:
		case <-ctx.Done():
			return ctx.Err()
		}
		if p%5 == 0 {
			return fmt.Errorf("p%d: %w", p, host.ErrUnavailable)
		}
		return nil
	})
	slices.Sort(read)
	slices.Sort(m.partitions)
	if diff := cmp.Diff(ps, read); diff != "" || err != nil || most != abreast {
		t.Errorf("%d at a time, want %d; %v; partitions read (-want +got)\n%s", most, abreast, err, diff)
	}
	if diff := cmp.Diff([]int32{0, 5, 10, 15, 20}, m.partitions); diff != "" {
		t.Errorf("not served (-want +got)\n%s", diff)
	}
}

// TestEachEnds: what fails, and the end of the caller's time, end all that is read.
func TestEachEnds(t *testing.T) {
	broken := errors.New("broken")
	_, err := each(t.Context(), []int32{0, 1, 2, 3}, func(ctx context.Context, p int32) error {
		if p == 2 {
			return broken
		}
		<-ctx.Done()
		return ctx.Err()
	})
	if !errors.Is(err, broken) {
		t.Errorf("one fails: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	m, err := each(ctx, []int32{0, 1, 2}, func(ctx context.Context, p int32) error {
		if p == 1 {
			cancel()
			return nil
		}
		<-ctx.Done()
		return ctx.Err()
	})
	slices.Sort(m.late)
	if !errors.Is(err, context.Canceled) || slices.Contains(m.late, 1) {
		t.Errorf("its time is over: %v, %v", m.late, err)
	}
	if _, err := each(ctx, []int32{0, 1, 2}, func(context.Context, int32) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("its time was over before: %v", err)
	}
}
