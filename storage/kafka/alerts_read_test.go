package kafka

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/doppel-iot/doppel/actors/alert"
	"github.com/doppel-iot/doppel/actors/host"
	"github.com/doppel-iot/doppel/cluster/placement"
)

// tellAlert publishes a transition with a place of its own, and returns when it is durable.
func tellAlert(t *testing.T, c *Client, device string, offset int64, index int) {
	t.Helper()
	tr := host.Transition{
		Partition: placement.Partition([]byte(device), c.Partitions()), Offset: offset, Index: index, Device: device,
		Alert: alert.Alert{ID: uint64(offset), State: alert.Firing, UpdateTime: 1795341600_000000000},
	}
	done := make(chan error, 1)
	c.AlertLog().Publish(t.Context(), tr, func(err error) { done <- err })
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// inWords is a transition in a line.
func inWords(p host.Published) string {
	return fmt.Sprintf("%s %s at %d.%d", p.Alert.GetDevice(), p.Alert.GetId(), p.Offset, p.Index)
}

var errSeen = errors.New("seen enough")

// TestAlertsAreFollowed: all partitions, each in order, what is there and what comes; what no node
// wrote is passed over.
func TestAlertsAreFollowed(t *testing.T) {
	for _, b := range backends() {
		t.Run(b.name, func(t *testing.T) {
			c := open(t, b.config(t))
			l := c.AlertLog()
			foreign := func(p int32, headers ...kgo.RecordHeader) {
				t.Helper()
				r := &kgo.Record{Topic: c.Topics().Alerts, Partition: p, Value: []byte("\xff"), Headers: headers}
				if err := c.Producer().ProduceSync(t.Context(), r).FirstErr(); err != nil {
					t.Fatal(err)
				}
			}
			for p := range c.Partitions() {
				foreign(p)
				foreign(p, header(headerPos, fmt.Sprintf("%d:1:0", p)))
				foreign(p, header(headerPos, fmt.Sprintf("%d:1:0", p+1)))
				foreign(p, header(headerPos, "here"))
				foreign(p, header(headerPos, fmt.Sprintf("%d:x:0", p)))
			}
			want := make(map[int32][]string)
			tell := func(i int) {
				t.Helper()
				device := fmt.Sprintf("dev-%d", i%7)
				tellAlert(t, c, device, int64(1000+i), i%3)
				p := placement.Partition([]byte(device), c.Partitions())
				want[p] = append(want[p], fmt.Sprintf("%s %016x at %d.%d", device, 1000+i, 1000+i, i%3))
			}
			const n = 50
			for i := range n / 2 {
				tell(i)
			}
			start, end, err := l.Bounds(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if slices.Max(start) != 0 || slices.Min(end) < 5 {
				t.Errorf("bounds: %v, %v", start, end)
			}
			got, count := make(map[int32][]string), 0
			half := make(chan struct{})
			ended := make(chan error, 1)
			go func() {
				ended <- l.Follow(t.Context(), start, func(p host.Published) error {
					got[p.Partition] = append(got[p.Partition], inWords(p))
					if p.At < 5 {
						t.Errorf("%s stands at %d", inWords(p), p.At)
					}
					switch count++; count {
					case n / 2:
						close(half)
					case n:
						return errSeen
					}
					return nil
				})
			}()
			select {
			case <-half:
			case <-time.After(20 * time.Second):
				t.Fatal("what was there does not come")
			}
			for i := n / 2; i < n; i++ {
				tell(i)
			}
			select {
			case err := <-ended:
				if !errors.Is(err, errSeen) {
					t.Fatal(err)
				}
			case <-time.After(20 * time.Second):
				t.Fatal("what follows does not come")
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("followed (-want +got)\n%s", diff)
			}
			clear(got)
			if _, end, err = l.Bounds(t.Context()); err != nil {
				t.Fatal(err)
			}
			err = l.Read(t.Context(), start, end, func(p host.Published) error {
				got[p.Partition] = append(got[p.Partition], inWords(p))
				return nil
			})
			if diff := cmp.Diff(want, got); err != nil || diff != "" {
				t.Errorf("read: %v (-want +got)\n%s", err, diff)
			}
			if err := l.Read(t.Context(), end, start, func(host.Published) error { return errSeen }); err != nil {
				t.Errorf("nothing to read: %v", err)
			}
		})
	}
}

// TestAlertsReadUpTo: a read ends at its ends, also where the last offset is no record but the end of
// another program's transaction.
func TestAlertsReadUpTo(t *testing.T) {
	for _, b := range backends() {
		t.Run(b.name, func(t *testing.T) {
			c := open(t, b.config(t))
			l := c.AlertLog()
			const device = "pump-1"
			p := placement.Partition([]byte(device), c.Partitions())
			for i := range 10 {
				tellAlert(t, c, device, int64(i), 0)
			}
			from, to := make([]int64, c.Partitions()), make([]int64, c.Partitions())
			read := func() (got []int64) {
				t.Helper()
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				defer cancel()
				if err := l.Read(ctx, from, to, func(r host.Published) error { got = append(got, r.At); return nil }); err != nil {
					t.Fatal(err)
				}
				return got
			}
			from[p], to[p] = 3, 6
			if diff := cmp.Diff([]int64{3, 4, 5}, read()); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
			cl, err := kgo.NewClient(append(c.Options(), kgo.TransactionalID(c.Topics().Alerts), kgo.RecordPartitioner(kgo.ManualPartitioner()))...)
			if err != nil {
				t.Fatal(err)
			}
			defer cl.Close()
			if err := cl.BeginTransaction(); err != nil {
				t.Fatal(err)
			}
			if err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: c.Topics().Alerts, Partition: p, Value: []byte("x")}).FirstErr(); err != nil {
				t.Fatal(err)
			}
			if err := cl.EndTransaction(t.Context(), kgo.TryCommit); err != nil {
				t.Fatal(err)
			}
			for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) { // the marker comes a moment later
				if _, to, err = l.Bounds(t.Context()); err == nil && to[p] == 12 {
					break
				}
				if time.Now().After(deadline) {
					t.Fatalf("ends %v, %v; want 12 in p%d", to, err, p)
				}
			}
			from[p] = 8
			if diff := cmp.Diff([]int64{8, 9}, read()); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

// TestAlertsNotRetained: what retention removed, and what was never there, is an error that says so.
func TestAlertsNotRetained(t *testing.T) {
	for _, b := range backends() {
		t.Run(b.name, func(t *testing.T) {
			c := open(t, b.config(t))
			l := c.AlertLog()
			const device = "pump-1"
			p := placement.Partition([]byte(device), c.Partitions())
			for i := range 10 {
				tellAlert(t, c, device, int64(i), 0)
			}
			var before kadm.Offsets
			before.AddOffset(c.Topics().Alerts, p, 4, -1)
			if _, err := c.adm.DeleteRecords(t.Context(), before); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			none := func(r host.Published) error { return fmt.Errorf("got %s", inWords(r)) }
			from, to := make([]int64, c.Partitions()), make([]int64, c.Partitions())
			from[p], to[p] = 2, 10
			if err := l.Read(ctx, from, to, none); !errors.Is(err, host.ErrNotRetained) {
				t.Errorf("read of what is gone: %v", err)
			}
			if err := l.Follow(ctx, from, none); !errors.Is(err, host.ErrNotRetained) {
				t.Errorf("follow what is gone: %v", err)
			}
			from[p] = 99
			if err := l.Follow(ctx, from, none); !errors.Is(err, host.ErrNotRetained) {
				t.Errorf("follow what never was: %v", err)
			}
			if start, _, err := l.Bounds(ctx); err != nil || start[p] != 4 {
				t.Errorf("it starts at %v, %v; want 4 in p%d", start, err, p)
			}
			ended, end := context.WithCancel(t.Context())
			end()
			from[p] = 4
			if err := l.Follow(ended, from, func(host.Published) error { return nil }); !errors.Is(err, context.Canceled) {
				t.Errorf("follow when it has ended: %v", err)
			}
		})
	}
}

// TestAlertsFollowedForAMoment: a consumer that is closed while it begins leaves nothing running (-race).
func TestAlertsFollowedForAMoment(t *testing.T) {
	for _, b := range backends() {
		t.Run(b.name, func(t *testing.T) {
			c := open(t, b.config(t))
			l := c.AlertLog()
			for p := range c.Partitions() {
				tellAlert(t, c, fmt.Sprintf("pump-%d", p), 1, 0)
			}
			from := make([]int64, c.Partitions())
			var all sync.WaitGroup
			for range 8 {
				all.Go(func() {
					for i := range 50 {
						ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i)*100*time.Microsecond)
						if err := l.Follow(ctx, from, func(host.Published) error { return nil }); !errors.Is(err, context.DeadlineExceeded) {
							t.Errorf("follow when it has ended: %v", err)
						}
						cancel()
					}
				})
			}
			all.Wait()
		})
	}
}
