package codec

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"pgregory.net/rapid"

	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

func delivered(t *rapid.T) Delivered {
	m := Delivered{
		Kind: rapid.SampledFrom([]doppelv1.DeviceMessageKind{0, 1, 2, 3, 77}).Draw(t, "kind"), Attempts: rapid.Uint32().Draw(t, "attempts"),
		Device: rapid.SliceOfN(rapid.ByteRange('a', 'z'), 0, 200).Draw(t, "device"), Payload: rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "payload"),
		ContentType: rapid.SampledFrom([]string{"", "application/json", "é"}).Draw(t, "content type"), Topic: rapid.String().Draw(t, "topic"),
		ReceivedAt: rapid.Int64().Draw(t, "received at"), Numbered: rapid.Bool().Draw(t, "numbered"),
	}
	if m.Numbered {
		m.Boot, m.Seq = rapid.Uint64().Draw(t, "boot"), rapid.Uint64().Draw(t, "seq")
	}
	return m
}

func deviceMessage(m *Delivered) *doppelv1.DeviceMessage {
	out := &doppelv1.DeviceMessage{
		Kind: m.Kind, Device: string(m.Device), Payload: m.Payload, ContentType: m.ContentType, ReceivedAt: m.ReceivedAt, Topic: m.Topic, Attempts: m.Attempts,
	}
	if m.Numbered {
		out.Boot, out.Seq = &m.Boot, &m.Seq
	}
	return out
}

func readDelivery(b []byte) (id uint64, msgs []Delivered, err error) {
	var r DeliveryReader
	id, err = r.Read(b, func(m *Delivered) { msgs = append(msgs, *m) })
	return id, msgs, err
}

// TestDelivery: a request is what the protobuf library reads and writes.
func TestDelivery(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		sent := rapid.SliceOfN(rapid.Custom(delivered), 0, 5).Draw(t, "messages")
		want := &doppelv1.DeliverRequest{Partition: rapid.Int32().Draw(t, "partition"), Id: rapid.Uint64().Draw(t, "id")}
		b := AppendDelivery(nil, want.GetPartition(), want.GetId())
		for i := range sent {
			b = AppendDelivered(b, &sent[i])
			want.Messages = append(want.Messages, deviceMessage(&sent[i]))
		}
		var got doppelv1.DeliverRequest
		if err := proto.Unmarshal(b, &got); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, &got, protocmp.Transform()); diff != "" {
			t.Fatalf("written (-want +got):\n%s", diff)
		}
		theirs, err := proto.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range [][]byte{b, theirs} {
			id, msgs, err := readDelivery(b)
			if err != nil || id != want.GetId() || !slices.EqualFunc(msgs, sent, sameDelivered) {
				t.Fatalf("read %d %v, %v, want %v", id, msgs, err, sent)
			}
		}
	})
}

func sameDelivered(a, b Delivered) bool { return proto.Equal(deviceMessage(&a), deviceMessage(&b)) }

// TestDeliveryForeignText: text that is not UTF-8 does not make a request unreadable.
func TestDeliveryForeignText(t *testing.T) {
	b := AppendDelivered(AppendDelivery(nil, -1, 512), &Delivered{Kind: 1, Device: []byte("d"), ContentType: "a\xff", Topic: "\xff"})
	var got doppelv1.DeliverRequest
	if err := proto.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	if m := got.GetMessages()[0]; got.GetPartition() != -1 || m.GetContentType() != "a\uFFFD" || m.GetTopic() != "\uFFFD" {
		t.Errorf("read %v", m)
	}
}

// FuzzDelivery: what can be read is what the protobuf library reads, which minds text besides.
func FuzzDelivery(f *testing.F) {
	f.Add(AppendDelivered(AppendDelivery(nil, -1, 512), &Delivered{Kind: 1, Device: []byte("d"), Payload: []byte("{}"), Numbered: true, Seq: 7, ReceivedAt: 1}))
	f.Fuzz(func(t *testing.T, b []byte) {
		id, msgs, err := readDelivery(b)
		var want doppelv1.DeliverRequest
		failed := proto.Unmarshal(b, &want)
		if failed != nil {
			return
		}
		if err != nil || id != want.GetId() || len(msgs) != len(want.GetMessages()) {
			t.Fatalf("read %d %v, %v, want %v", id, msgs, err, &want)
		}
		for i := range msgs {
			theirs := want.GetMessages()[i]
			if theirs.Seq == nil {
				theirs.Boot, msgs[i].Boot = nil, 0 // a number has both
			} else if theirs.Boot == nil {
				theirs.Boot = new(uint64)
			}
			theirs.ProtoReflect().SetUnknown(nil)
			if diff := cmp.Diff(theirs, deviceMessage(&msgs[i]), protocmp.Transform()); diff != "" {
				t.Fatalf("message %d (-want +got):\n%s", i, diff)
			}
		}
	})
}
