package codec

import (
	"testing"
	"time"

	"github.com/vmihailenco/msgpack/v5"
	"google.golang.org/protobuf/proto"

	"github.com/doppel-iot/doppel/actors/twin"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// typical is one sample of three metrics in each format.
func typical() map[string][]byte {
	type m = map[string]any
	return map[string][]byte{
		"json": []byte(`{"boot":3,"seq":118,"time":"2026-11-22T10:00:00.123456789Z","metrics":{"humidity":41.25,"temperature":21.53,"vibration":0.0213}}`),
		"protobuf": must(proto.Marshal(&doppelv1.Telemetry{
			Boot: proto.Uint64(3), Seq: proto.Uint64(118), Time: proto.Int64(received),
			Metrics: map[string]float64{"humidity": 41.25, "temperature": 21.53, "vibration": 0.0213},
		})),
		"msgpack": must(msgpack.Marshal(m{
			"boot": 3, "seq": 118, "time": time.Unix(0, received),
			"metrics": m{"humidity": 41.25, "temperature": 21.53, "vibration": 0.0213},
		})),
	}
}

func batches() map[string][]byte {
	type m = map[string]any
	p := &doppelv1.Telemetry{Boot: proto.Uint64(3)}
	var packed []m
	var text []byte
	for i := range 10 {
		metrics := map[string]float64{"humidity": 41.25, "temperature": 21.53, "vibration": 0.0213}
		p.Samples = append(p.Samples, &doppelv1.Sample{Seq: new(uint64(i + 1)), Metrics: metrics})
		packed = append(packed, m{"seq": i + 1, "metrics": metrics, "reported": m{"b": 1, "a": "x"}})
		text = append(text, `{"seq":`+string(rune('1'+i%9))+`,"metrics":{"vibration":0.0213,"humidity":41.25,"temperature":21.53},"reported":{"b":1,"a":"x"}},`...)
	}
	return map[string][]byte{
		"json":     []byte(`{"boot":3,"samples":[` + string(text[:len(text)-1]) + `]}`),
		"protobuf": must(proto.Marshal(p)),
		"msgpack":  must(msgpack.Marshal(m{"boot": 3, "samples": packed})),
	}
}

// TestNoAllocations: in steady state the path of a sample leaves nothing to the collector.
func TestNoAllocations(t *testing.T) {
	d := NewDecoder()
	for _, payloads := range []map[string][]byte{typical(), batches()} {
		for name, payload := range payloads {
			got := testing.AllocsPerRun(100, func() {
				items, r := d.Telemetry("", payload, received+1e9)
				if r != nil || items[0].Refusal != nil {
					t.Fatal(r, items[0].Refusal)
				}
			})
			if got != 0 {
				t.Errorf("%s: got %v allocations, want 0", name, got)
			}
		}
	}
	status := []byte(`{"online":true,"boot":3,"session":17}`)
	if got := testing.AllocsPerRun(100, func() {
		if _, _, r := d.Status(status); r != nil {
			t.Fatal(r)
		}
	}); got != 0 {
		t.Errorf("status: got %v allocations, want 0", got)
	}
	e := benchEvent()
	b := AppendEvent(nil, e)
	if got := testing.AllocsPerRun(100, func() { b = AppendEvent(b[:0], e) }); got != 0 {
		t.Errorf("append: got %v allocations, want 0", got)
	}
	var ed EventDecoder
	var out Event
	if got := testing.AllocsPerRun(100, func() {
		if err := ed.Decode(b, &out); err != nil {
			t.Fatal(err)
		}
	}); got != 0 {
		t.Errorf("decode: got %v allocations, want 0", got)
	}
}

// benchEvent is the record of a sample of three metrics that was applied.
func benchEvent() *Event {
	e := goldenEvent()
	e.Input.Sample.Reported = nil
	e.Input.Sample.Readings = []twin.Reading{{Name: "humidity", Value: 41.25}, {Name: "temperature", Value: 21.53}, {Name: "vibration", Value: 0.0213}}
	e.Effects.Transitions = nil
	e.Effects.Applied = e.Effects.Applied[:1]
	e.Effects.Applied[0].Reported = nil
	e.Effects.Applied[0].Readings = []twin.ScoredReading{scored("humidity", 41.25, 0.1, 0), scored("temperature", 21.53, -0.2, 0), scored("vibration", 0.0213, 1.5, 1.25)}
	return e
}

func BenchmarkTelemetry(b *testing.B) {
	for _, name := range []string{"json", "protobuf", "msgpack"} {
		payload := typical()[name]
		b.Run(name, func(b *testing.B) {
			d := NewDecoder()
			b.ReportAllocs()
			b.SetBytes(int64(len(payload)))
			for b.Loop() {
				if items, r := d.Telemetry("", payload, received+1e9); r != nil || items[0].Refusal != nil {
					b.Fatal(r)
				}
			}
		})
	}
}

func BenchmarkAppendEvent(b *testing.B) {
	e := benchEvent()
	buf := AppendEvent(nil, e)
	b.ReportAllocs()
	b.SetBytes(int64(len(buf)))
	for b.Loop() {
		buf = AppendEvent(buf[:0], e)
	}
}

func BenchmarkDecodeEvent(b *testing.B) {
	value := AppendEvent(nil, benchEvent())
	var d EventDecoder
	var e Event
	b.ReportAllocs()
	b.SetBytes(int64(len(value)))
	for b.Loop() {
		if err := d.Decode(value, &e); err != nil {
			b.Fatal(err)
		}
	}
}
