package kafka

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	"github.com/doppel-iot/doppel/actors/host"
	"github.com/doppel-iot/doppel/actors/twin"
	"github.com/doppel-iot/doppel/cluster/placement"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// write puts letters and returns when they are durable.
func write(t *testing.T, c *Client, letters ...host.DeadLetter) {
	t.Helper()
	done := make(chan error, len(letters))
	for _, l := range letters {
		c.DeadLetters().Put(t.Context(), l, func(err error) { done <- err })
	}
	for range letters {
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
}

// scan is every letter, by a reader that knows only what is in the log.
func scan(t *testing.T, l *Letters) []*doppelv1.DeadLetter {
	t.Helper()
	start, end, err := l.Bounds(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var all []*doppelv1.DeadLetter
	err = l.Scan(t.Context(), start, end, func(d *doppelv1.DeadLetter) error {
		all = append(all, d)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func redrive(t *testing.T, l *Letters, of *doppelv1.DeadLetter, m *host.Message) error {
	t.Helper()
	done := make(chan error, 1)
	l.Redrive(t.Context(), of, m, func(err error) { done <- err })
	return <-done
}

func TestScanLetters(t *testing.T) {
	for _, b := range backends() {
		t.Run(b.name, func(t *testing.T) {
			c := open(t, b.config(t))
			large := make([]byte, letterBytes+1)
			write(t, c,
				host.DeadLetter{
					Device: "pump-1", Payload: []byte{0xff, 0, '{'}, Reason: twin.NotDecodable, Detail: "byte 0", SourceTopic: "devices/pump-1/telemetry",
					ContentType: "application/json", ReceivedAt: 1795341600_123456789, Node: "node-1", Attempts: 2,
				},
				host.DeadLetter{Reason: twin.MissingKey, SourceTopic: c.Topics().Ingest, ReceivedAt: 1},
				host.DeadLetter{Device: "gr\xf6\xdfe", Payload: large, Reason: twin.BadDeviceID, ReceivedAt: 1795341600_000000000},
			)
			want := []*doppelv1.DeadLetter{
				{
					Id: "0-0", Device: "pump-1", Payload: []byte{0xff, 0, '{'}, Reason: "not_decodable", Detail: "byte 0", SourceTopic: "devices/pump-1/telemetry",
					ContentType: "application/json", ReceiveTime: timestamppb.New(time.Unix(0, 1795341600_123456789)), Node: "node-1", Attempts: 2,
				},
				{Id: "0-1", Reason: "missing_key", SourceTopic: c.Topics().Ingest, ReceiveTime: timestamppb.New(time.Unix(0, 1))},
				{
					Id: "0-2", Device: "gr\ufffde", Payload: large[:letterBytes], Reason: "device_id", ReceiveTime: timestamppb.New(time.Unix(1795341600, 0)),
					TruncatedFrom: letterBytes + 1,
				},
			}
			if diff := cmp.Diff(want, scan(t, c.Letters()), protocmp.Transform()); diff != "" {
				t.Errorf("letters (-want +got):\n%s", diff)
			}
			var got []string
			err := c.Letters().Scan(t.Context(), 1, 2, func(d *doppelv1.DeadLetter) error { got = append(got, d.GetId()); return nil })
			if diff := cmp.Diff([]string{"0-1"}, got); err != nil || diff != "" {
				t.Errorf("part of them: %v (-want +got):\n%s", err, diff)
			}
		})
	}
}

// TestRedriveLetter: the corrected bytes are in ingest where the device's messages are, and every
// reader knows that the letter was sent again.
func TestRedriveLetter(t *testing.T) {
	for _, b := range backends() {
		t.Run(b.name, func(t *testing.T) {
			c := open(t, b.config(t))
			for i := range 3 {
				write(t, c, host.DeadLetter{Device: "pump-1", Payload: fmt.Appendf(nil, "bad %d", i), Reason: twin.NotDecodable, ReceivedAt: 1})
			}
			l := c.Letters()
			before := scan(t, l)
			m := &host.Message{
				Kind: host.Reported, Device: []byte("pump-1"), Payload: []byte("{}"), ContentType: "application/json",
				ReceivedAt: 1795341600_123456789, Attempts: 3, Topic: "devices",
			}
			if err := redrive(t, l, before[1], m); err != nil {
				t.Fatal(err)
			}
			for name, reader := range map[string]*Letters{"this": l, "another": c.Letters()} {
				var got []string
				for _, d := range scan(t, reader) {
					got = append(got, fmt.Sprintf("%s %t", d.GetId(), d.GetRedriven()))
				}
				if diff := cmp.Diff([]string{"0-0 false", "0-1 true", "0-2 false"}, got); diff != "" {
					t.Errorf("%s reader (-want +got):\n%s", name, diff)
				}
			}
			r := consume(t, c, c.Topics().Ingest, 1)[0]
			if string(r.Key) != "pump-1" || string(r.Value) != "{}" || r.Partition != placement.Partition(m.Device, c.Partitions()) {
				t.Errorf("ingest got key %q, value %q in p%d", r.Key, r.Value, r.Partition)
			}
			want := map[string]string{
				"received-at": "2026-11-22T10:00:00.123456789Z", "content-type": "application/json", "topic": "devices/pump-1/reported",
				"attempts": "3", "redrive-of": "0-1", "source": c.cfg.ClientID,
			}
			if diff := cmp.Diff(want, headersOf(r)); diff != "" {
				t.Errorf("headers (-want +got):\n%s", diff)
			}
			mark := consume(t, c, c.Topics().DLQ, 4)[3]
			if string(mark.Key) != "pump-1" || len(mark.Value) != 0 {
				t.Errorf("mark has key %q and value %q, want the device and none", mark.Key, mark.Value)
			}
			if diff := cmp.Diff(map[string]string{"redriven": "0-1", "of-attempt": "0", "node": c.cfg.ClientID}, headersOf(mark)); diff != "" {
				t.Errorf("headers of the mark (-want +got):\n%s", diff)
			}
		})
	}
}

// TestExpiredLetters: what retention removed is left out, also while somebody reads, and forgotten.
func TestExpiredLetters(t *testing.T) {
	for _, b := range backends() {
		t.Run(b.name, func(t *testing.T) {
			c := open(t, b.config(t))
			for range 200 {
				write(t, c, host.DeadLetter{Device: "pump-1", Payload: []byte("bad"), Reason: twin.NotDecodable, ReceivedAt: 1})
			}
			l := c.Letters()
			of := scan(t, l)[150]
			if err := redrive(t, l, of, &host.Message{Kind: host.Telemetry, Device: []byte("pump-1"), Topic: "devices"}); err != nil {
				t.Fatal(err)
			}
			var before kadm.Offsets
			before.AddOffset(c.Topics().DLQ, 0, 130, -1)
			if _, err := c.adm.DeleteRecords(t.Context(), before); err != nil {
				t.Fatal(err)
			}
			for _, reader := range []*Letters{l, c.Letters()} {
				var got []string
				err := reader.Scan(t.Context(), 0, 201, func(d *doppelv1.DeadLetter) error {
					if d.GetRedriven() || len(got) == 0 {
						got = append(got, d.GetId())
					}
					return nil
				})
				if diff := cmp.Diff([]string{"0-130", "0-150"}, got); err != nil || diff != "" {
					t.Errorf("%v, the first and the redriven one (-want +got):\n%s", err, diff)
				}
				if got := reader.redriven.base; got != 128 {
					t.Errorf("marks below %d forgotten, want 128", got)
				}
			}
		})
	}
}

// TestStrangeMarks: marks of no letter, or of one that is not there yet, mark nothing.
func TestStrangeMarks(t *testing.T) {
	c := open(t, backends()[0].config(t))
	write(t, c, host.DeadLetter{Device: "a", Reason: twin.NoContent})
	for _, id := range []string{"", "0-", "1-0", "0-x", "0--1", "0-9223372036854775807", "0-5"} {
		r := &kgo.Record{Topic: c.Topics().DLQ, Headers: []kgo.RecordHeader{header(headerRedriven, id)}}
		if err := c.side.ProduceSync(t.Context(), r).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	write(t, c, host.DeadLetter{Device: "b", Reason: twin.NoContent})
	l := c.Letters()
	all := scan(t, l)
	if len(all) != 2 || all[0].GetRedriven() || all[1].GetRedriven() {
		t.Errorf("got %v, want two letters, none redriven", all)
	}
	if got := len(l.redriven.words); got > 1 {
		t.Errorf("%d words for 9 records", got)
	}
}

// TestRedriveFails: a letter whose message is not durable is not marked.
func TestRedriveFails(t *testing.T) {
	c := open(t, backends()[0].config(t))
	write(t, c, host.DeadLetter{Device: "a", Reason: twin.NoContent})
	l := c.Letters()
	of := scan(t, l)[0]
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	done := make(chan error, 1)
	l.Redrive(ctx, of, &host.Message{Kind: host.Telemetry, Device: []byte("a"), Payload: make([]byte, 8<<20), Topic: "devices"}, func(err error) { done <- err })
	if err := <-done; err == nil {
		t.Error("a message that no broker takes was redriven")
	}
	if scan(t, l)[0].GetRedriven() {
		t.Error("the letter counts as redriven")
	}
}

// TestOffsetSet compares with a map.
func TestOffsetSet(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var s offsetSet
		model := map[int64]bool{}
		start := rapid.Int64Range(0, 1000).Draw(t, "start")
		s.forget(start)
		for range rapid.IntRange(0, 50).Draw(t, "steps") {
			if rapid.IntRange(0, 9).Draw(t, "forget") == 0 {
				start += rapid.Int64Range(0, 200).Draw(t, "by")
				s.forget(start)
				continue
			}
			o := start + rapid.Int64Range(0, 500).Draw(t, "offset")
			s.add(o)
			model[o] = true
		}
		for o := start; o < start+1000; o++ {
			if s.has(o) != model[o] {
				t.Fatalf("has(%d) is %v from %d on", o, s.has(o), start)
			}
		}
	})
}
