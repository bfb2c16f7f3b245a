package kafka

import (
	"errors"
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/doppel-iot/doppel/actors/host"
)

func TestRowCursors(t *testing.T) {
	for _, b := range backends() {
		t.Run(b.name, func(t *testing.T) {
			c := open(t, b.config(t))
			ctx, group := t.Context(), c.topics.Telemetry+"rows-"+t.Name()
			one, two := c.RowCursors(group), c.RowCursors(group)
			load := func(r *RowCursors, want map[int32]host.Cursor) {
				t.Helper()
				got, err := r.Load(ctx)
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("loaded (-want +got):\n%s", diff)
				}
			}
			save := func(r *RowCursors, want error, cursors map[int32]host.Cursor) {
				t.Helper()
				if err := r.Save(ctx, cursors); !errors.Is(err, want) {
					t.Fatalf("save: %v, want %v", err, want)
				}
			}
			until(t, "the coordinator is there", func() bool { // a new Kafka makes its topic first
				_, err := one.Load(ctx)
				return err == nil
			})
			load(one, map[int32]host.Cursor{})
			a, z := host.Cursor{Next: 5, Epoch: 2, N: 3}, host.Cursor{Next: 9, Epoch: math.MaxUint64, N: 0}
			save(one, nil, map[int32]host.Cursor{0: a, 3: z})
			load(two, map[int32]host.Cursor{0: a, 3: z})

			// The other moves on; what the first has is older and changes nothing.
			b := host.Cursor{Next: 50, Epoch: 20, N: 29}
			save(two, nil, map[int32]host.Cursor{0: b})
			save(one, nil, map[int32]host.Cursor{0: {Next: 6, Epoch: 2, N: 4}})
			load(two, map[int32]host.Cursor{0: b, 3: z})

			// One resets: the other learns of it before it commits.
			if err := one.Reset(ctx); err != nil {
				t.Fatal(err)
			}
			if err := one.Reset(ctx); err != nil { // there is nothing to reset
				t.Fatal(err)
			}
			save(two, ErrCursorsReset, map[int32]host.Cursor{0: {Next: 60, Epoch: 20, N: 39}})
			load(two, map[int32]host.Cursor{})
			save(two, nil, map[int32]host.Cursor{0: a})
			load(one, map[int32]host.Cursor{0: a})

			// A commit of somebody else's is none of ours.
			foreign := kadm.Offsets{}
			foreign.AddOffset(c.topics.Telemetry, 1, 7, -1)
			if err := c.adm.CommitAllOffsets(ctx, group, foreign); err != nil {
				t.Fatal(err)
			}
			load(one, map[int32]host.Cursor{0: a})
		})
	}
}

// Commits that do not move are made again now and then.
func TestRowCursorsAreRefreshed(t *testing.T) {
	c := open(t, backends()[0].config(t))
	r := c.RowCursors("rows")
	a := host.Cursor{Next: 5, Epoch: 2, N: 3}
	if err := r.Save(t.Context(), map[int32]host.Cursor{0: a}); err != nil {
		t.Fatal(err)
	}
	before := r.refreshed
	r.refreshed = r.refreshed.Add(-refreshCursors)
	if err := r.Save(t.Context(), map[int32]host.Cursor{1: a}); err != nil {
		t.Fatal(err)
	}
	if !r.refreshed.After(before) {
		t.Error("not refreshed when due")
	}
	got, err := r.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[int32]host.Cursor{0: a, 1: a}, got); diff != "" {
		t.Errorf("loaded (-want +got):\n%s", diff)
	}
}
