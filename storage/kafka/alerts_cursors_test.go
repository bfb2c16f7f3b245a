package kafka

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/doppel-iot/doppel/actors/host"
	"github.com/doppel-iot/doppel/cluster/placement"
)

// TestAlertCursors: what one node leaves, the next one finds; places of others mean nothing.
func TestAlertCursors(t *testing.T) {
	for _, b := range backends() {
		t.Run(b.name, func(t *testing.T) {
			c := open(t, b.config(t))
			group := c.topics.Alerts + "-sink"
			one, two := c.AlertCursors(group), c.AlertCursors(group)
			load := func(r *AlertCursors, want map[int32]host.AlertPlace) {
				t.Helper()
				got, err := r.Load(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("loaded (-want +got):\n%s", diff)
				}
			}
			until(t, "the coordinator is there", func() bool {
				_, err := one.Load(t.Context())
				return err == nil
			})
			load(one, map[int32]host.AlertPlace{})
			first := host.AlertPlace{Next: 7, Offset: 1 << 40, Index: 3}
			if err := one.Save(t.Context(), map[int32]host.AlertPlace{0: first, 2: {Next: 0, Offset: -1}}); err != nil {
				t.Fatal(err)
			}
			load(two, map[int32]host.AlertPlace{0: first, 2: {Next: 0, Offset: -1}})
			second := host.AlertPlace{Next: 9, Offset: 1<<40 + 1}
			if err := two.Save(t.Context(), map[int32]host.AlertPlace{0: second}); err != nil {
				t.Fatal(err)
			}
			var foreign kadm.Offsets
			foreign.AddOffset(c.topics.Alerts, 1, 5, -1)
			if err := c.adm.CommitAllOffsets(t.Context(), group, foreign); err != nil {
				t.Fatal(err)
			}
			load(one, map[int32]host.AlertPlace{0: second, 2: {Next: 0, Offset: -1}})
		})
	}
}

// TestAlertCursorsSurvive: the embedded log keeps them, too.
func TestAlertCursorsSurvive(t *testing.T) {
	dir := t.TempDir()
	at := map[int32]host.AlertPlace{1: {Next: 5, Offset: 77, Index: 1}}
	for round := range 2 {
		e, err := OpenEmbedded(EmbeddedConfig{Addr: "127.0.0.1:0", DataDir: dir})
		if err != nil {
			t.Fatal(err)
		}
		c, err := Open(t.Context(), Config{Brokers: []string{e.Addr()}, Embedded: true, TopicPrefix: "x.", Partitions: 4})
		if err != nil {
			t.Fatal(err)
		}
		cursors := c.AlertCursors("sink")
		if round == 0 {
			err = cursors.Save(t.Context(), at)
		} else {
			var got map[int32]host.AlertPlace
			got, err = cursors.Load(t.Context())
			if diff := cmp.Diff(at, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		}
		if err := errors.Join(err, c.Close(), e.Close()); err != nil {
			t.Fatal(err)
		}
	}
}

// TestAlertsAreTailed: the partitions asked for from where they were left, what is foreign as nothing; and what
// is gone is an error.
func TestAlertsAreTailed(t *testing.T) {
	for _, b := range backends() {
		t.Run(b.name, func(t *testing.T) {
			c := open(t, b.config(t))
			l := c.AlertLog()
			one := "pump-1"
			p := placement.Partition([]byte(one), c.Partitions())
			two := "fan-0" // in another partition
			for i := 0; placement.Partition([]byte(two), c.Partitions()) == p; i++ {
				two = fmt.Sprintf("fan-%d", i)
			}
			for i := range 3 {
				tellAlert(t, c, one, int64(10+i), i)
				tellAlert(t, c, two, int64(20+i), 0)
			}
			r := &kgo.Record{Topic: c.Topics().Alerts, Partition: p, Value: []byte("not ours")}
			if err := c.Producer().ProduceSync(t.Context(), r).FirstErr(); err != nil {
				t.Fatal(err)
			}
			tellAlert(t, c, one, 13, 0)
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			var got []string
			err := l.Tail(ctx, map[int32]int64{p: 1}, func(r host.Published) error {
				if r.Alert == nil {
					got = append(got, fmt.Sprintf("nothing at %d", r.At))
				} else {
					got = append(got, fmt.Sprintf("%s %d.%d at %d", r.Alert.GetDevice(), r.Offset, r.Index, r.At))
				}
				if r.At == 4 {
					return errSeen
				}
				return nil
			})
			if !errors.Is(err, errSeen) {
				t.Fatal(err)
			}
			if diff := cmp.Diff([]string{"pump-1 11.1 at 1", "pump-1 12.2 at 2", "nothing at 3", "pump-1 13.0 at 4"}, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			none := func(r host.Published) error { return fmt.Errorf("got what stands at %d", r.At) }
			if err := l.Tail(ctx, map[int32]int64{p: 99}, none); !errors.Is(err, host.ErrNotRetained) {
				t.Errorf("behind the end: %v", err)
			}
			var before kadm.Offsets
			before.AddOffset(c.Topics().Alerts, p, 3, -1)
			if _, err := c.adm.DeleteRecords(t.Context(), before); err != nil {
				t.Fatal(err)
			}
			if err := l.Tail(ctx, map[int32]int64{p: 1}, none); !errors.Is(err, host.ErrNotRetained) {
				t.Errorf("of what is gone: %v", err)
			}
		})
	}
}

// TestAlertsAreCloudEvents: the binary mode of the Kafka protocol binding, whatever the state.
func TestAlertsAreCloudEvents(t *testing.T) {
	c := open(t, backends()[0].config(t))
	tellAlert(t, c, "pump-1", 41, 2)
	p := placement.Partition([]byte("pump-1"), c.Partitions())
	cl, err := kgo.NewClient(append(c.Options(), kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{c.Topics().Alerts: {p: kgo.NewOffset().At(0)}}))...)
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	got := map[string]string{}
	for _, r := range cl.PollFetches(ctx).Records() {
		got["key"] = string(r.Key)
		for _, h := range r.Headers {
			got[h.Key] = string(h.Value)
		}
	}
	want := map[string]string{
		"key": "pump-1", "ce_specversion": "1.0", "ce_type": "doppel.v1.alert.firing", "ce_source": "urn:doppel:" + c.Topics().Telemetry, "ce_subject": "pump-1",
		"ce_id": fmt.Sprintf("0000000000000029/%d:41:2", p), "ce_time": "2026-11-22T10:00:00Z", "content-type": "application/protobuf", "pos": fmt.Sprintf("%d:41:2", p),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestOffsetAt: the first record that was written at a time or later.
func TestOffsetAt(t *testing.T) {
	for _, b := range backends() {
		t.Run(b.name, func(t *testing.T) {
			c := open(t, b.config(t))
			var times []time.Time
			for i := range 3 {
				times = append(times, time.Now())
				r := &kgo.Record{Topic: c.Topics().Telemetry, Partition: 1, Value: []byte{byte(i)}, Timestamp: times[i].Truncate(time.Millisecond).Add(time.Millisecond)}
				if err := c.Producer().ProduceSync(t.Context(), r).FirstErr(); err != nil {
					t.Fatal(err)
				}
				for time.Since(times[i]) < 5*time.Millisecond { // the broker knows milliseconds
					time.Sleep(time.Millisecond)
				}
			}
			for i, at := range append(times, time.Now().Add(time.Hour)) {
				if got, err := c.Changelog().OffsetAt(t.Context(), 1, at.UnixNano()); err != nil || got != int64(i) {
					t.Errorf("%d: offset %d, %v", i, got, err)
				}
			}
			if got, err := c.Changelog().OffsetAt(t.Context(), 1, -5); err != nil || got != 0 {
				t.Errorf("before everything: offset %d, %v", got, err)
			}
			if got, err := c.Changelog().OffsetAt(t.Context(), 2, 5); err != nil || got != 0 {
				t.Errorf("of nothing: offset %d, %v", got, err)
			}
		})
	}
}
