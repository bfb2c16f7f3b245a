package kafka

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/doppel-iot/doppel/actors/alert"
	"github.com/doppel-iot/doppel/actors/codec"
	"github.com/doppel-iot/doppel/actors/host"
	"github.com/doppel-iot/doppel/actors/twin"
	"github.com/doppel-iot/doppel/cluster/placement"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// consume returns the first count records of a topic, of any partition, as another program would see them.
func consume(t *testing.T, c *Client, topic string, count int) []*kgo.Record {
	t.Helper()
	cl, err := kgo.NewClient(append(c.Options(), kgo.ConsumeTopics(topic))...)
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var got []*kgo.Record
	for len(got) < count {
		fs := cl.PollFetches(ctx)
		if ctx.Err() != nil {
			t.Fatalf("got %d records of %s, want %d", len(got), topic, count)
		}
		fs.EachRecord(func(r *kgo.Record) { got = append(got, r) })
	}
	return got
}

func headersOf(r *kgo.Record) map[string]string {
	m := map[string]string{}
	for _, h := range r.Headers {
		m[h.Key] = string(h.Value)
	}
	return m
}

func TestDeadLetters(t *testing.T) {
	for _, b := range backends() {
		t.Run(b.name, func(t *testing.T) {
			c := open(t, b.config(t))
			letters := []host.DeadLetter{
				{
					Device: "pump-1", Payload: []byte{0xff, 0, '{'}, Reason: twin.NotDecodable, Detail: "byte 0",
					SourceTopic: "devices/pump-1/telemetry", ContentType: "application/json",
					ReceivedAt: 1795341600_123456789, Node: "node-1", Attempts: 2,
				},
				{Payload: nil, Reason: twin.MissingKey, SourceTopic: c.Topics().Ingest, ReceivedAt: 1, Node: "node-1", Attempts: 1},
				{Device: "pump-1", Payload: bytes.Repeat([]byte("x"), 2<<20), Reason: twin.TooLarge, ReceivedAt: 1795341600_000000000},
			}
			done := make(chan error, len(letters))
			for _, l := range letters {
				c.DeadLetters().Put(t.Context(), l, func(err error) { done <- err })
			}
			for range letters {
				if err := <-done; err != nil {
					t.Fatal(err)
				}
			}
			got := consume(t, c, c.Topics().DLQ, len(letters))
			if string(got[0].Key) != "pump-1" || !bytes.Equal(got[0].Value, letters[0].Payload) {
				t.Errorf("got key %q and value %q, want the device and the bytes as they came", got[0].Key, got[0].Value)
			}
			want := map[string]string{
				"reason": "not_decodable", "detail": "byte 0", "source-topic": "devices/pump-1/telemetry",
				"content-type": "application/json", "received-at": "2026-11-22T10:00:00.123456789Z", "node": "node-1", "attempts": "2",
			}
			if diff := cmp.Diff(want, headersOf(got[0])); diff != "" {
				t.Errorf("headers (-want +got):\n%s", diff)
			}
			if got[1].Key != nil {
				t.Errorf("got key %q without a device, want none", got[1].Key)
			}
			if got, want := headersOf(got[2])["truncated-from"], "2097152"; got != want {
				t.Errorf("got truncated-from %q, want %q", got, want)
			}
			if got := len(got[2].Value); got != letterBytes {
				t.Errorf("got %d bytes of a large letter, want %d", got, letterBytes)
			}
		})
	}
}

func TestAlertLog(t *testing.T) {
	for _, b := range backends() {
		t.Run(b.name, func(t *testing.T) {
			c := open(t, b.config(t))
			tr := host.Transition{
				Partition: 3, Offset: 4711, Index: 1, Device: "pump-7",
				Alert: alert.Alert{
					ID: 0xabc, Rule: "builtin.zscore", Metric: "temperature", Severity: alert.Critical, State: alert.Firing,
					CreateTime: 1795341600_000000000, FireTime: 1795341601_500000000, UpdateTime: 1795341601_500000000,
					Value: 91.5, Score: 6.2, Boot: 3, Seq: 118, Reason: "far from its baseline",
				},
			}
			done := make(chan error, 1)
			c.AlertLog().Publish(t.Context(), tr, func(err error) { done <- err })
			if err := <-done; err != nil {
				t.Fatal(err)
			}
			got := consume(t, c, c.Topics().Alerts, 1)[0]
			if got, want := string(got.Key), "pump-7"; got != want {
				t.Errorf("got key %q, want %q", got, want)
			}
			if got, want := got.Partition, placement.Partition([]byte("pump-7"), c.Partitions()); got != want {
				t.Errorf("got partition %d, want the device's, %d", got, want)
			}
			want := map[string]string{
				"ce_specversion": "1.0", "ce_id": "0000000000000abc/3:4711:1", "ce_source": "urn:doppel:" + c.Topics().Telemetry,
				"ce_type": "doppel.v1.alert.firing", "ce_subject": "pump-7", "ce_time": "2026-11-22T10:00:01.5Z",
				"content-type": "application/protobuf", "pos": "3:4711:1",
			}
			if diff := cmp.Diff(want, headersOf(got)); diff != "" {
				t.Errorf("headers (-want +got):\n%s", diff)
			}
			var a doppelv1.Alert
			if err := proto.Unmarshal(got.Value, &a); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(codec.Alert("pump-7", &tr.Alert), &a, protocmp.Transform()); diff != "" {
				t.Errorf("alert (-want +got):\n%s", diff)
			}
		})
	}
}

func TestLettersAfterClose(t *testing.T) {
	c := open(t, backends()[0].config(t))
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	c.DeadLetters().Put(t.Context(), host.DeadLetter{Reason: twin.TooLarge}, func(err error) { done <- err })
	if err := <-done; err == nil || !strings.Contains(err.Error(), "dead letter") {
		t.Errorf("got error %v, want one of a dead letter", err)
	}
}

func TestLettersGiveUpWithTheirContext(t *testing.T) {
	c := &Client{log: &Log{closed: make(chan struct{})}}
	o := &outbox{c: c, gate: make(chan struct{})} // full
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	done := make(chan error, 1)
	o.put(ctx, &kgo.Record{}, "alert", func(err error) { done <- err })
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("got error %v, want %v", err, context.Canceled)
	}
}
