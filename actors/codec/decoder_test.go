package codec

import (
	"encoding/json"
	"math"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vmihailenco/msgpack/v5"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
	"pgregory.net/rapid"

	"github.com/doppel-iot/doppel/actors/twin"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// TestContractExamples decodes the two messages that the contract shows.
func TestContractExamples(t *testing.T) {
	const at = 1795341600123456789
	d := NewDecoder()
	one := `{"boot":3,"seq":118,"time":"2026-11-22T10:00:00.123456789Z","metrics":{"vibration":0.02,"temperature":21.5},"reported":{"firmware":"1.2.3"}}`
	items, r := d.Telemetry("", []byte(one), at)
	if r != nil {
		t.Fatal(r)
	}
	want := []Item{{Sample: twin.Sample{
		Numbered: true, Timed: true, Boot: 3, Seq: 118, Time: at,
		Readings: []twin.Reading{{Name: "temperature", Value: 21.5}, {Name: "vibration", Value: 0.02}},
		Reported: []byte(`{"firmware":"1.2.3"}`),
	}}}
	if diff := cmp.Diff(want, items); diff != "" {
		t.Errorf("one (-want +got):\n%s", diff)
	}

	batch := `{"boot":3,"samples":[{"seq":118,"time":1795341600123456789,"metrics":{"temperature":21.5}},{"seq":119,"time":1795341601123456789,"metrics":{"temperature":21.6}}]}`
	items, r = d.Telemetry("application/json", []byte(batch), at)
	if r != nil {
		t.Fatal(r)
	}
	want = []Item{
		{Sample: twin.Sample{Numbered: true, Timed: true, Boot: 3, Seq: 118, Time: at, Readings: []twin.Reading{{Name: "temperature", Value: 21.5}}}},
		{Sample: twin.Sample{Numbered: true, Timed: true, Boot: 3, Seq: 119, Time: at + 1e9, Readings: []twin.Reading{{Name: "temperature", Value: 21.6}}}},
	}
	if diff := cmp.Diff(want, items); diff != "" {
		t.Errorf("batch (-want +got):\n%s", diff)
	}
}

// TestAccepted has forms that are less usual and right.
func TestAccepted(t *testing.T) {
	type m = map[string]any
	at := time.Unix(0, received)
	reading := []twin.Reading{{Name: "a", Value: 1}}
	unnumbered := twin.Sample{Time: received, Readings: reading}
	timed := twin.Sample{Timed: true, Time: received, Readings: reading}
	tests := []struct {
		name, contentType, payload string
		want                       twin.Sample
	}{
		{"white space", "application/json", " {\r\n\t\"metrics\" : { \"a\" : 1 } } \n", unnumbered},
		{"content type in capitals", "Application/JSON; charset=utf-8", `{"metrics":{"a":1}}`, unnumbered},
		{"unknown members", "", `{"x":{"y":[1,"z",null,true,false,-1.5e3]},"metrics":{"a":1},"z":[]}`, unnumbered},
		{"null is absent", "", `{"boot":null,"seq":null,"time":null,"samples":null,"reported":null,"metrics":{"a":1}}`, unnumbered},
		{"escaped names", "", `{"m\u0065trics":{"\u0061":1}}`, unnumbered},
		{"bool", "", `{"metrics":{"a":true}}`, unnumbered},
		{"boot without seq", "", `{"boot":3,"metrics":{"a":1}}`, unnumbered},
		{"seq without boot", "", `{"seq":3,"metrics":{"a":1}}`, twin.Sample{Numbered: true, Seq: 3, Time: received, Readings: reading}},
		{"numbers in strings", "", `{"boot":"3","seq":"9223372036854775807","time":"1795341600000000000","metrics":{"a":1}}`, twin.Sample{
			Numbered: true, Timed: true, Boot: 3, Seq: math.MaxInt64, Time: received, Readings: reading,
		}},
		{"time with offset", "", `{"time":"2026-11-22T12:30:00.0+02:30","metrics":{"a":1}}`, timed},
		{"time just not too far", "", `{"time":"2026-11-22T10:10:00Z","metrics":{"a":1}}`, twin.Sample{Timed: true, Time: received + 600e9, Readings: reading}},
		{"first time taken", "", `{"time":946684800000000000,"metrics":{"a":1}}`, twin.Sample{Timed: true, Time: 946684800e9, Readings: reading}},
		{"64 metrics", "", `{"metrics":{` + manyMetrics(64) + `}}`, twin.Sample{Time: received, Readings: readings64()}},
		{"longest name", "", `{"metrics":{"` + strings.Repeat("Z", 64) + `":-0}}`, twin.Sample{
			Time: received, Readings: []twin.Reading{{Name: strings.Repeat("Z", 64), Value: math.Copysign(0, -1)}},
		}},
		{"only reported", "", `{"reported":{}}`, twin.Sample{Time: received, Reported: []byte(`{}`)}},
		{"protobuf", "application/protobuf", string(wireOf(t, telemetry("a", 1))), unnumbered},
		{"protobuf by its first byte", "", string(wireOf(t, telemetry("a", 1))), unnumbered},
		{"protobuf last wins", "", string(wireOf(t, telemetry("a", math.NaN()))) + string(wireOf(t, telemetry("a", 1))), unnumbered},
		{"protobuf entry without value", "", "\x22\x03\x0a\x01a", twin.Sample{Time: received, Readings: []twin.Reading{{Name: "a"}}}},
		{"protobuf unknown fields", "", string(wireOf(t, telemetry("a", 1))) + "\xfa\x01\x01x\x80\x02\x05", unnumbered},
		{"protobuf reported in parts", "", string(wireOf(t, reportedOf("a"))) + string(wireOf(t, reportedOf("b"))), twin.Sample{Time: received, Reported: []byte(`{"a":1,"b":1}`)}},
		{"msgpack", "application/vnd.msgpack", string(pack(t, m{"metrics": m{"a": true}, "x": []any{1, m{"y": at}}})), unnumbered},
		{"msgpack float32", "", string(pack(t, m{"metrics": m{"a": float32(1)}})), unnumbered},
		{"msgpack integers", "", string(pack(t, m{"metrics": m{"a": -7, "b": -70000, "c": uint64(math.MaxUint64)}})), twin.Sample{
			Time: received, Readings: []twin.Reading{{Name: "a", Value: -7}, {Name: "b", Value: -70000}, {Name: "c", Value: math.MaxUint64}},
		}},
		{"msgpack timestamp 32", "", "\x82\xa4time\xd6\xff" + "\x6b\x02\xbd\x20" + "\xa7metrics\x81\xa1a\x01", timed},
		{"msgpack timestamp 64", "", string(pack(t, m{"time": at.Add(-1), "metrics": m{"a": 1}})), twin.Sample{Timed: true, Time: received - 1, Readings: reading}},
		{"msgpack timestamp 96", "", "\x82\xa4time\xc7\x0c\xff\x00\x00\x00\x00\x00\x00\x00\x00" + "\x6b\x02\xbd\x20" + "\xa7metrics\x81\xa1a\x01", timed},
		{"msgpack time as text", "", string(pack(t, m{"time": at.UTC().Format(time.RFC3339), "metrics": m{"a": 1}})), timed},
		{"msgpack other keys", "", "\x82\x01\x02\xa7metrics\x81\xa1a\x01", unnumbered},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			items, r := NewDecoder().Telemetry(tt.contentType, []byte(tt.payload), received)
			if r != nil {
				t.Fatal(r)
			}
			if diff := cmp.Diff([]Item{{Sample: tt.want}}, items, sameBits); diff != "" {
				t.Errorf("items (-want +got):\n%s", diff)
			}
		})
	}
}

// sameBits tells 0 from -0 and takes equal NaNs for equal.
var sameBits = cmp.Comparer(func(a, b float64) bool { return math.Float64bits(a) == math.Float64bits(b) })

func readings64() []twin.Reading {
	var rs []twin.Reading
	d := NewDecoder()
	d.begin(-1)
	for i := range 64 {
		d.setReading("m"+strconv.Itoa(i), 1, false)
	}
	return append(rs, d.readings...)
}

func reportedOf(name string) *doppelv1.Telemetry {
	return &doppelv1.Telemetry{Reported: &structpb.Struct{Fields: map[string]*structpb.Value{name: structpb.NewNumberValue(1)}}}
}

func TestReadingsInByteOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		metrics := rapid.MapOfN(rapid.StringMatching(`[A-Za-z_][A-Za-z0-9_]{0,5}`), rapid.Float64Range(-1e9, 1e9), 1, 64).Draw(t, "metrics")
		items, r := NewDecoder().Telemetry("", must(proto.Marshal(&doppelv1.Telemetry{Metrics: metrics})), received)
		if r != nil || items[0].Refusal != nil {
			t.Fatalf("refused: %v %v", r, items)
		}
		rs := items[0].Sample.Readings
		if len(rs) != len(metrics) {
			t.Fatalf("got %d readings, want %d", len(rs), len(metrics))
		}
		for i, reading := range rs {
			if i > 0 && rs[i-1].Name >= reading.Name {
				t.Errorf("%q stands before %q", rs[i-1].Name, reading.Name)
			}
			if metrics[reading.Name] != reading.Value {
				t.Errorf("%s: got %v, want %v", reading.Name, reading.Value, metrics[reading.Name])
			}
		}
	})
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// message is one before it is encoded.
type message struct {
	boot    *uint64
	batch   bool
	samples []sampleOf
}

type sampleOf struct {
	seq      *uint64
	time     *int64
	metrics  map[string]float64
	reported map[string]any
}

func drawMessage(t *rapid.T) message {
	number := rapid.Ptr(rapid.Uint64Range(1, math.MaxInt64), true)
	m := message{boot: number.Draw(t, "boot"), batch: rapid.Bool().Draw(t, "batch")}
	n := 1
	if m.batch {
		n = rapid.IntRange(1, 4).Draw(t, "samples")
	}
	value := rapid.OneOf(rapid.Float64(), rapid.Just(0.0), rapid.Map(rapid.IntRange(-1000, 1000), func(i int) float64 { return float64(i) / 10 })).
		Filter(func(f float64) bool { return !math.IsInf(f, 0) && !math.IsNaN(f) })
	for range n {
		s := sampleOf{
			seq:     number.Draw(t, "seq"),
			time:    rapid.Ptr(rapid.Int64Range(946684800e9, received), true).Draw(t, "time"),
			metrics: rapid.MapOfN(rapid.StringMatching(`[A-Za-z_][A-Za-z0-9_]{0,63}`), value, 1, 5).Draw(t, "metrics"),
		}
		if rapid.Bool().Draw(t, "reports") {
			s.reported = drawObject(t, 3)
		}
		m.samples = append(m.samples, s)
	}
	return m
}

// drawObject draws properties; numbers are such that every format has them.
func drawObject(t *rapid.T, depth int) map[string]any {
	o := make(map[string]any)
	for range rapid.IntRange(0, 3).Draw(t, "members") {
		o[rapid.String().Draw(t, "name")] = drawValue(t, depth)
	}
	return o
}

func drawValue(t *rapid.T, depth int) any {
	kinds := 6
	if depth == 0 {
		kinds = 4
	}
	switch rapid.IntRange(0, kinds-1).Draw(t, "kind") {
	case 0:
		return rapid.String().Draw(t, "text")
	case 1:
		return rapid.Float64().Draw(t, "number")
	case 2:
		return rapid.Bool().Draw(t, "bool")
	case 3:
		return nil
	case 4:
		return drawObject(t, depth-1)
	}
	list := make([]any, rapid.IntRange(0, 3).Draw(t, "elements"))
	for i := range list {
		list[i] = drawValue(t, depth-1)
	}
	return list
}

// tree is the message as JSON and MessagePack have it.
func (m *message) tree() map[string]any {
	put := func(o map[string]any, s *sampleOf) {
		if s.seq != nil {
			o["seq"] = *s.seq
		}
		if s.time != nil {
			o["time"] = *s.time
		}
		o["metrics"] = s.metrics
		if s.reported != nil {
			o["reported"] = s.reported
		}
	}
	top := make(map[string]any)
	if m.boot != nil {
		top["boot"] = *m.boot
	}
	if !m.batch {
		put(top, &m.samples[0])
		return top
	}
	var list []any
	for i := range m.samples {
		o := make(map[string]any)
		put(o, &m.samples[i])
		list = append(list, o)
	}
	top["samples"] = list
	return top
}

func (m *message) proto() *doppelv1.Telemetry {
	p := &doppelv1.Telemetry{Boot: m.boot}
	for i := range m.samples {
		s := &m.samples[i]
		var reported *structpb.Struct
		if s.reported != nil {
			reported = must(structpb.NewStruct(s.reported))
		}
		if m.batch {
			p.Samples = append(p.Samples, &doppelv1.Sample{Seq: s.seq, Time: s.time, Metrics: s.metrics, Reported: reported})
		} else {
			p.Seq, p.Time, p.Metrics, p.Reported = s.seq, s.time, s.metrics, reported
		}
	}
	return p
}

// TestFormatsAgree: what libraries of others encode is the same sample in each format.
func TestFormatsAgree(t *testing.T) {
	d := NewDecoder()
	rapid.Check(t, func(t *rapid.T) {
		m := drawMessage(t)
		var want []Item
		for i := range m.samples {
			s := &m.samples[i]
			w := twin.Sample{Time: received}
			if s.seq != nil {
				w.Numbered, w.Seq = true, *s.seq
				if m.boot != nil {
					w.Boot = *m.boot
				}
			}
			if s.time != nil {
				w.Timed, w.Time = true, *s.time
			}
			want = append(want, Item{Sample: w})
		}
		var packed strings.Builder
		enc := msgpack.NewEncoder(&packed)
		enc.UseCompactInts(rapid.Bool().Draw(t, "compact"))
		if err := enc.Encode(m.tree()); err != nil {
			t.Fatal(err)
		}
		for _, f := range []struct{ contentType, payload string }{
			{"application/json", string(must(json.Marshal(m.tree())))},
			{"application/x-protobuf", string(must(proto.Marshal(m.proto())))},
			{"application/msgpack", packed.String()},
		} {
			items, r := d.Telemetry(f.contentType, []byte(f.payload), received)
			if r != nil {
				t.Fatalf("%s: %v\n%q", f.contentType, r, f.payload)
			}
			got := make([]Item, len(items))
			copy(got, items)
			for i := range got {
				s := &m.samples[i]
				checkContent(t, f.contentType, s, &got[i].Sample)
				got[i].Sample.Readings, got[i].Sample.Reported = nil, nil
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Fatalf("%s (-want +got):\n%s", f.contentType, diff)
			}
		}
	})
}

func checkContent(t *rapid.T, format string, want *sampleOf, got *twin.Sample) {
	t.Helper()
	if len(got.Readings) != len(want.metrics) {
		t.Fatalf("%s: got %d readings, want %d", format, len(got.Readings), len(want.metrics))
	}
	for _, r := range got.Readings {
		if w := want.metrics[r.Name]; math.Float64bits(w) != math.Float64bits(r.Value) {
			t.Fatalf("%s: %s: got %v, want %v", format, r.Name, r.Value, w)
		}
	}
	if (got.Reported != nil) != (want.reported != nil) {
		t.Fatalf("%s: got reported %s, want %v", format, got.Reported, want.reported)
	}
	if want.reported == nil {
		return
	}
	var tree map[string]any
	if err := json.Unmarshal(got.Reported, &tree); err != nil {
		t.Fatalf("%s: reported %s: %v", format, got.Reported, err)
	}
	if diff := cmp.Diff(want.reported, tree); diff != "" {
		t.Fatalf("%s: reported (-want +got):\n%s", format, diff)
	}
	if w, ok := canonical(want.reported); ok && w != string(got.Reported) {
		t.Fatalf("%s: got reported %s, want %s", format, got.Reported, w)
	}
}

// canonical is what encoding/json makes of it, which is our form but for two characters that it
// escapes.
func canonical(v any) (string, bool) {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return "", false
	}
	s := strings.TrimSuffix(b.String(), "\n")
	return s, !strings.Contains(s, `\u202`) && !strings.Contains(s, `\b`) && !strings.Contains(s, `\f`) && !strings.Contains(s, "-0")
}
