package codec

import (
	"bytes"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"pgregory.net/rapid"

	"github.com/doppel-iot/doppel/actors/alert"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// offsets also has what stands for "none".
func offsets() *rapid.Generator[int64] { return rapid.Int64Min(-1) }

func drawCursor(t *rapid.T) Cursor {
	return Cursor{offsets().Draw(t, "next"), rapid.Uint64().Draw(t, "epoch"), rapid.Uint64().Draw(t, "n")}
}

func (c Cursor) generated() *doppelv1.Cursor {
	if c == (Cursor{}) {
		return nil
	}
	return &doppelv1.Cursor{NextOffset: uint64(c.Next), Epoch: c.Epoch, N: c.N}
}

// TestCheckpointIsTheProtobufMessage: our bytes are those of the generated code, and both read them alike.
func TestCheckpointIsTheProtobufMessage(t *testing.T) {
	var d CheckpointDecoder
	rapid.Check(t, func(t *rapid.T) {
		c := &Checkpoint{
			Epoch: rapid.Uint64().Draw(t, "epoch"), Asof: offsets().Draw(t, "asof"), Cursor: drawCursor(t),
			Version: rapid.Uint32Min(1).Draw(t, "version"), Twin: rapid.SliceOfN(rapid.Byte(), 1, 300).Draw(t, "twin"),
		}
		for range rapid.IntRange(0, 3).Draw(t, "alerts") {
			c.Alerts = append(c.Alerts, drawAlert(t))
		}
		want := &doppelv1.Checkpoint{Epoch: c.Epoch, Asof: uint64(c.Asof), Cursor: c.Cursor.generated(), Version: c.Version, Twin: c.Twin}
		for i := range c.Alerts {
			want.Alerts = append(want.Alerts, Alert("", &c.Alerts[i]))
		}
		b := AppendCheckpoint([]byte("before"), c)
		checkMessage(t, b, want, new(doppelv1.Checkpoint))
		var got Checkpoint
		if err := d.Decode(b[len("before"):], &got); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(*c, got, sameBits); diff != "" {
			t.Fatalf("checkpoint (-want +got):\n%s", diff)
		}
	})
}

func TestFloorIsTheProtobufMessage(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := &Floor{
			Epoch: rapid.Uint64().Draw(t, "epoch"), Start: drawCursor(t), StateOffset: offsets().Draw(t, "state"),
			LogOffset: offsets().Draw(t, "log"), EffectsNext: offsets().Draw(t, "effects"),
			State: PartitionState{
				SrcNext:     Position{rapid.Uint64().Draw(t, "offset"), rapid.Uint32().Draw(t, "index")},
				RulesOffset: offsets().Draw(t, "rules"), Now: rapid.Int64().Draw(t, "now"), Unsettled: rapid.Bool().Draw(t, "unsettled"),
				RulesAt: offsets().Draw(t, "rules at"),
			},
		}
		s := &f.State
		rules := &doppelv1.RulesInput{Offset: uint64(rapid.Uint32Min(1).Draw(t, "rule"))}
		if rapid.Bool().Draw(t, "ruled") {
			var err error
			if s.Rules, err = proto.Marshal(rules); err != nil {
				t.Fatal(err)
			}
		} else {
			rules = nil
		}
		b := AppendFloor([]byte("before"), f)
		checkMessage(t, b, &doppelv1.Floor{
			Epoch: f.Epoch, Start: f.Start.generated(), StateOffset: uint64(f.StateOffset), LogOffset: uint64(f.LogOffset),
			State: &doppelv1.PartitionState{
				IngestOffset: s.SrcNext.Offset, IngestIndex: s.SrcNext.Index, RulesOffset: uint64(s.RulesOffset), Now: s.Now, Unsettled: s.Unsettled,
				Rules: rules, RulesAt: uint64(s.RulesAt),
			},
			EffectsNext: uint64(f.EffectsNext),
		}, new(doppelv1.Floor))
		got, err := DecodeFloor(b[len("before"):])
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(*f, got); diff != "" {
			t.Fatalf("floor (-want +got):\n%s", diff)
		}
	})
}

// checkMessage: b is "before" and the bytes of want.
func checkMessage(t *rapid.T, b []byte, want, got proto.Message) {
	b, ok := bytes.CutPrefix(b, []byte("before"))
	if !ok {
		t.Fatal("dst was overwritten")
	}
	if err := proto.Unmarshal(b, got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, protocmp.Transform(), sameBits); diff != "" {
		t.Fatalf("message (-want +got):\n%s", diff)
	}
	if wantBytes := must((proto.MarshalOptions{Deterministic: true}).Marshal(want)); !bytes.Equal(b, wantBytes) {
		t.Fatalf("got bytes\n%x, want\n%x", b, wantBytes)
	}
}

// TestAlertIsTheProtobufMessage: an encoded alert is read as by way of the message, fields of later
// versions and of the alert service's own included.
func TestAlertIsTheProtobufMessage(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := drawAlert(t)
		p := Alert("pump-1", &a)
		p.Tags, p.Silenced, p.AcknowledgedBy, p.AcknowledgeTime = map[string]string{"site": "brno"}, true, "me", timestamp(received)
		b := append(must(proto.Marshal(p)), "\xfa\x7f\x03new\x98\x75\x01\xa1\x75\x00\x00\x00\x00\x00\x00\x00\x00"...)
		want, err := AlertFrom(p)
		if err != nil {
			t.Fatal(err)
		}
		got, err := decodeAlert(b, make(names))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got, sameBits); diff != "" {
			t.Fatalf("alert (-want +got):\n%s", diff)
		}
	})
}

func TestUnreadableState(t *testing.T) {
	good := AppendCheckpoint(nil, goldenCheckpoint())
	var d CheckpointDecoder
	for name, value := range map[string]string{
		"empty":             "",
		"text":              "hello world",
		"cut":               string(good[:len(good)-3]),
		"no twin":           string(AppendCheckpoint(nil, &Checkpoint{Epoch: 1, Version: 1})),
		"no version":        string(AppendCheckpoint(nil, &Checkpoint{Epoch: 1, Twin: []byte{1}})),
		"bad cursor":        "\x1a\x01\x08\x20\x01\x2a\x01\x01",
		"alert without id":  "\x20\x01\x2a\x01\x01\x32\x00",
		"alert of bad text": "\x20\x01\x2a\x01\x01\x32\x06\x0a\x01a\x1a\x01\xff",
		"half an alert":     "\x20\x01\x2a\x01\x01\x32\x01\x0a",
		"half a time":       "\x20\x01\x2a\x01\x01\x32\x06\x0a\x01a\x42\x01\x08",
	} {
		var c Checkpoint
		if err := d.Decode([]byte(value), &c); !errors.Is(err, ErrUnreadable) {
			t.Errorf("%s: got %v, want ErrUnreadable", name, err)
		}
	}
	for name, value := range map[string]string{
		"empty": "", "text": "hello world", "no state": "\x08\x01", "bad cursor": "\x12\x01\x08\x2a\x00", "bad state": "\x2a\x01\x08",
	} {
		if _, err := DecodeFloor([]byte(value)); !errors.Is(err, ErrUnreadable) {
			t.Errorf("floor, %s: got %v, want ErrUnreadable", name, err)
		}
	}
	if b := AppendFloor(nil, &Floor{}); len(b) == 0 {
		t.Error("the floor of an empty log is empty, which looks like a deletion")
	}
}

// FuzzCheckpoint: whatever can be read is read the same again after it was written, and as the
// generated code reads it.
func FuzzCheckpoint(f *testing.F) {
	f.Add(AppendCheckpoint(nil, goldenCheckpoint()))
	f.Add([]byte("\x20\x01\x2a\x01\x01\x32\x03\x0a\x01a"))
	f.Fuzz(func(t *testing.T, value []byte) {
		var first, second CheckpointDecoder
		var c, again Checkpoint
		if first.Decode(value, &c) != nil {
			return
		}
		b := AppendCheckpoint(nil, &c)
		if err := second.Decode(b, &again); err != nil {
			t.Fatalf("%x: %v", b, err)
		}
		if diff := cmp.Diff(c, again, sameBits); diff != "" {
			t.Fatalf("checkpoint (-first +again):\n%s", diff)
		}
		var p doppelv1.Checkpoint
		if err := proto.Unmarshal(b, &p); err != nil {
			t.Fatal(err)
		}
		if p.GetEpoch() != c.Epoch || int64(p.GetAsof()) != c.Asof || p.GetVersion() != c.Version || !bytes.Equal(p.GetTwin(), c.Twin) || len(p.GetAlerts()) != len(c.Alerts) {
			t.Fatalf("the generated code reads %v, want %+v", &p, c)
		}
		var alerts []alert.Alert
		for _, q := range p.GetAlerts() {
			alerts = append(alerts, must(AlertFrom(q)))
		}
		if diff := cmp.Diff(c.Alerts, alerts, sameBits); diff != "" {
			t.Fatalf("alerts (-ours +generated code):\n%s", diff)
		}
	})
}

// FuzzFloor: whatever can be read is read the same again after it was written.
func FuzzFloor(f *testing.F) {
	f.Add(AppendFloor(nil, goldenFloor()))
	f.Fuzz(func(t *testing.T, value []byte) {
		first, err := DecodeFloor(value)
		if err != nil {
			return
		}
		again, err := DecodeFloor(AppendFloor(nil, &first))
		if err != nil || !cmp.Equal(again, first) {
			t.Fatalf("got %+v, %v, want %+v", again, err, first)
		}
	})
}

// TestCheckpointsAllocateNothing, but for the reasons of alerts.
func TestCheckpointsAllocateNothing(t *testing.T) {
	c := goldenCheckpoint()
	c.Alerts = nil
	b := AppendCheckpoint(nil, c)
	if got := testing.AllocsPerRun(100, func() { b = AppendCheckpoint(b[:0], c) }); got != 0 {
		t.Errorf("append: got %v allocations, want 0", got)
	}
	var d CheckpointDecoder
	var out Checkpoint
	if got := testing.AllocsPerRun(100, func() {
		if err := d.Decode(b, &out); err != nil {
			t.Fatal(err)
		}
	}); got != 0 {
		t.Errorf("decode: got %v allocations, want 0", got)
	}
}

func BenchmarkCheckpoint(b *testing.B) {
	c := goldenCheckpoint()
	c.Twin, c.Alerts = make([]byte, 460), nil
	value := AppendCheckpoint(nil, c)
	b.Run("append", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			value = AppendCheckpoint(value[:0], c)
		}
	})
	b.Run("decode", func(b *testing.B) {
		b.ReportAllocs()
		var d CheckpointDecoder
		for b.Loop() {
			if err := d.Decode(value, c); err != nil {
				b.Fatal(err)
			}
		}
	})
}
