package codec

import (
	"math"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vmihailenco/msgpack/v5"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/doppel-iot/doppel/actors/twin"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// received is the receive time of the tests; 1795341600 s is 2026-11-22T10:00:00Z.
const received = 1795341600_000000000

func pack(t *testing.T, v any) []byte {
	t.Helper()
	b, err := msgpack.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func wireOf(t *testing.T, m proto.Message) []byte {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func telemetry(name string, value float64) *doppelv1.Telemetry {
	return &doppelv1.Telemetry{Metrics: map[string]float64{name: value}}
}

func many(n int, element string) string {
	return strings.TrimSuffix(strings.Repeat(element+",", n), ",")
}

func manyMetrics(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(`,"m` + strconv.Itoa(i) + `":1`)
	}
	return b.String()[1:]
}

// TestEnvelope has what refuses a whole message.
func TestEnvelope(t *testing.T) {
	type m = map[string]any
	tests := []struct {
		name, contentType string
		payload           []byte
		reason            twin.Reason
		detail            string
	}{
		{"empty", "", nil, twin.NoContent, "the payload is empty"},
		{"too large", "", make([]byte, MaxMessage+1), twin.TooLarge, "the message has 65537 bytes, at most 65536 are taken"},
		{
			"content type", "text/plain", []byte(`{}`), twin.ContentType,
			`content type "text/plain" is not known; application/json, application/x-protobuf and application/msgpack are taken`,
		},
		{"json syntax", "", []byte(`{"seq":1,}`), twin.NotDecodable, `not JSON: byte 9: expected a member name, got '}'`},
		{"json cut", "", []byte(`{"metrics":{"a":1`), twin.NotDecodable, `not JSON: byte 17: expected ',' or '}', got the end`},
		{"json cut in a string", "", []byte(`{"metr`), twin.NotDecodable, `not JSON: byte 6: the string has no end`},
		{"json NaN", "", []byte(`{"metrics":{"a":NaN}}`), twin.NotDecodable, `not JSON: byte 16: expected a value, got 'N'`},
		{"json behind", "", []byte(`{} {}`), twin.NotDecodable, `not JSON: byte 3: data behind the JSON object`},
		{"json array", "application/json", []byte(`[1]`), twin.NotDecodable, `a message is a JSON object, got an array`},
		{"json text", "application/json", []byte(`hello`), twin.NotDecodable, `not JSON: byte 0: expected a value, got 'h'`},
		{"json utf-8", "", []byte("{\"\xff\":1}"), twin.NotDecodable, `not JSON: byte 2: the string is not UTF-8`},
		{"json surrogate", "", []byte(`{"\ud800":1}`), twin.NotDecodable, `not JSON: byte 2: a \u escape needs four hex digits, and a surrogate its other half`},
		{"json half a surrogate", "", []byte(`{"\ud800\u0041":1}`), twin.NotDecodable, `not JSON: byte 2: a \u escape needs four hex digits, and a surrogate its other half`},
		{"json escape of letters", "", []byte(`{"\u00zz":1}`), twin.NotDecodable, `not JSON: byte 2: a \u escape needs four hex digits, and a surrogate its other half`},
		{"json cut in an escape", "", []byte(`{"\`), twin.NotDecodable, `not JSON: byte 3: the string has no end`},
		{"protobuf entry cut", "application/protobuf", []byte("\x22\x02\x0a\x05"), twin.NotDecodable, "not a protobuf message doppel.v1.Telemetry"},
		{"json control", "", []byte("{\"\n\":1}"), twin.NotDecodable, `not JSON: byte 2: control character in a string`},
		{"json escape", "", []byte(`{"\x":1}`), twin.NotDecodable, `not JSON: byte 2: unknown escape "\\x" in a string`},
		{"json leading zero", "", []byte(`{"seq":01}`), twin.NotDecodable, `not JSON: byte 8: expected ',' or '}', got '1'`},
		{"json nesting", "", []byte(`{"x":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + `}`), twin.NotDecodable, `not JSON: byte 70: nested deeper than 64 levels`},
		{"json boot twice", "", []byte(`{"boot":1,"boot":1,"metrics":{"a":1}}`), twin.NotDecodable, `boot: appears twice`},
		{"json boot type", "", []byte(`{"boot":true,"metrics":{"a":1}}`), twin.NotDecodable, `boot: expected an integer, got a boolean`},
		{"json boot negative", "", []byte(`{"boot":-1,"metrics":{"a":1}}`), twin.NumberRange, `boot: -1 is negative`},
		{"json boot large", "", []byte(`{"boot":9223372036854775808,"metrics":{"a":1}}`), twin.NumberRange, `boot: 9223372036854775808 is more than 2^63-1`},
		{"json samples type", "", []byte(`{"samples":{}}`), twin.NotDecodable, `samples: expected an array, got an object`},
		{"json samples empty", "", []byte(`{"boot":1,"samples":[]}`), twin.NoContent, `samples: the batch is empty`},
		{"json samples twice", "", []byte(`{"samples":[{}],"samples":[{}]}`), twin.NotDecodable, `samples: appears twice`},
		{"json mixed", "", []byte(`{"seq":1,"samples":[{}]}`), twin.NotDecodable, `seq: stands beside samples; in a batch it belongs into each sample`},
		{"json mixed behind", "", []byte(`{"samples":[{}],"time":1}`), twin.NotDecodable, `time: stands beside samples; in a batch it belongs into each sample`},
		{"json too many", "", []byte(`{"samples":[` + many(1001, "{}") + `]}`), twin.TooManySamples, `samples: more than 1000 in a message`},
		{
			"protobuf", "", []byte("hello"), twin.NotDecodable,
			"not a protobuf message doppel.v1.Telemetry (no content type was given, and the first byte is not {)",
		},
		{"protobuf cut", "application/protobuf", wireOf(t, telemetry("a", 1))[:9], twin.NotDecodable, "not a protobuf message doppel.v1.Telemetry"},
		{
			"protobuf boot", "application/x-protobuf", wireOf(t, &doppelv1.Telemetry{Boot: proto.Uint64(1 << 63)}), twin.NumberRange,
			"boot: 9223372036854775808 is more than 2^63-1",
		},
		{
			"protobuf mixed", "application/x-protobuf",
			wireOf(t, &doppelv1.Telemetry{Seq: proto.Uint64(1), Samples: []*doppelv1.Sample{{}}}), twin.NotDecodable,
			`seq: stands beside samples; in a batch it belongs into each sample`,
		},
		{
			"protobuf mixed behind", "application/x-protobuf",
			append(wireOf(t, &doppelv1.Telemetry{Samples: []*doppelv1.Sample{{}}}), wireOf(t, telemetry("a", 1))...), twin.NotDecodable,
			`metrics: stands beside samples; in a batch it belongs into each sample`,
		},
		{
			"protobuf too many", "application/x-protobuf", wireOf(t, &doppelv1.Telemetry{Samples: slicesOf(1001)}), twin.TooManySamples,
			`samples: more than 1000 in a message`,
		},
		{
			"msgpack cut", "",
			[]byte{0x81, 0xa1},
			twin.NotDecodable,
			"not MessagePack: byte 2: the message ends too early (no content type was given, and the first byte is not {)",
		},
		{"msgpack array", "application/msgpack", []byte{0x90}, twin.NotDecodable, "a message is a MessagePack map, got an array"},
		{"msgpack behind", "application/msgpack", []byte{0x80, 0x80}, twin.NotDecodable, "not MessagePack: byte 1: data behind the map"},
		{"msgpack reserved", "application/x-msgpack", []byte{0x81, 0xa1, 'x', 0xc1}, twin.NotDecodable, "not MessagePack: byte 3: 0xc1 begins no value"},
		{"msgpack nesting", "application/msgpack", append([]byte{0x81, 0xa1, 'x'}, []byte(strings.Repeat("\x91", 100)+"\xc0")...), twin.NotDecodable, "not MessagePack: byte 69: nested deeper than 64 levels"},
		{"msgpack count", "application/vnd.msgpack", []byte{0xdf, 0xff, 0xff, 0xff, 0xff}, twin.NotDecodable, "not MessagePack: byte 5: the message ends too early"},
		{"msgpack boot", "application/msgpack", pack(t, m{"boot": 1.5}), twin.NumberRange, "boot: 1.5 is not an integer"},
		{"msgpack boot type", "application/msgpack", pack(t, m{"boot": "x"}), twin.NotDecodable, "boot: expected an integer, got a string"},
		{"msgpack boot twice", "application/msgpack", []byte("\x82\xa4boot\x01\xa4boot\x01"), twin.NotDecodable, "boot: appears twice"},
		{"msgpack samples type", "application/msgpack", pack(t, m{"samples": 1}), twin.NotDecodable, "samples: expected an array, got an integer"},
		{"msgpack samples empty", "application/msgpack", pack(t, m{"samples": []m{}}), twin.NoContent, "samples: the batch is empty"},
		{"msgpack samples twice", "application/msgpack", []byte("\x82\xa7samples\x91\x80\xa7samples\x90"), twin.NotDecodable, "samples: appears twice"},
		{"msgpack mixed", "application/msgpack", []byte("\x82\xa3seq\x01\xa7samples\x90"), twin.NotDecodable, "seq: stands beside samples; in a batch it belongs into each sample"},
		{"msgpack mixed behind", "application/msgpack", []byte("\x82\xa7samples\x91\x80\xa3seq\x01"), twin.NotDecodable, "seq: stands beside samples; in a batch it belongs into each sample"},
		{"msgpack too many", "application/msgpack", pack(t, m{"samples": make([]m, 1001)}), twin.TooManySamples, "samples: 1001 in a message, at most 1000 are taken"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			items, got := NewDecoder().Telemetry(tt.contentType, tt.payload, received)
			want := &Refusal{Reason: tt.reason, Detail: tt.detail}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("refusal (-want +got):\n%s", diff)
			}
			if items != nil {
				t.Errorf("got %d items beside a refusal", len(items))
			}
		})
	}
}

func slicesOf(n int) []*doppelv1.Sample {
	s := make([]*doppelv1.Sample, n)
	for i := range s {
		s[i] = &doppelv1.Sample{}
	}
	return s
}

// TestRefusedSample has what refuses one sample of a message, in each format that can say it.
func TestRefusedSample(t *testing.T) {
	type m = map[string]any
	seq7 := func(r twin.Reason, detail string) *Refusal {
		return &Refusal{Reason: r, Detail: detail, Numbered: true, Boot: 3, Seq: 7}
	}
	with := func(tm *doppelv1.Telemetry) []byte {
		tm.Boot, tm.Seq = proto.Uint64(3), proto.Uint64(7)
		return wireOf(t, tm)
	}
	withPack := func(extra m) []byte {
		extra["boot"], extra["seq"] = 3, 7
		return pack(t, extra)
	}
	name65 := strings.Repeat("a", 65)
	deep := func(n int) string { return strings.Repeat(`{"a":`, n) + "1" + strings.Repeat("}", n) }
	future := time.Unix(0, received).UTC().Add(10*time.Minute + 1)
	tests := []struct {
		name    string
		payload []byte
		want    *Refusal
	}{
		{"no content", []byte(`{"boot":3,"seq":7}`), seq7(twin.NoContent, "the sample: neither metrics nor reported")},
		{"nothing known", []byte(`{"sequence":7,"metric":{"a":1}}`), &Refusal{Reason: twin.NoContent, Detail: "the sample: neither metrics nor reported"}},
		{"no metrics", []byte(`{"boot":3,"seq":7,"metrics":{}}`), seq7(twin.NoContent, "the sample: neither metrics nor reported")},
		{"null", []byte(`{"boot":3,"seq":7,"metrics":null,"reported":null}`), seq7(twin.NoContent, "the sample: neither metrics nor reported")},
		{"protobuf no content", with(&doppelv1.Telemetry{}), seq7(twin.NoContent, "the sample: neither metrics nor reported")},
		{"msgpack no content", withPack(m{"metrics": nil}), seq7(twin.NoContent, "the sample: neither metrics nor reported")},

		{"name", []byte(`{"boot":3,"metrics":{"a-b":1},"seq":7}`), seq7(twin.MetricName, `metrics: "a-b" is not a name: a letter or _, then up to 63 letters, digits or _`)},
		{"name empty", []byte(`{"boot":3,"metrics":{"":1},"seq":7}`), seq7(twin.MetricName, `metrics: "" is not a name: a letter or _, then up to 63 letters, digits or _`)},
		{"name digit", []byte(`{"boot":3,"metrics":{"1a":1},"seq":7}`), seq7(twin.MetricName, `metrics: "1a" is not a name: a letter or _, then up to 63 letters, digits or _`)},
		{"name long", []byte(`{"boot":3,"metrics":{"` + name65 + `":{"x":[1,"2"]}},"seq":7}`), seq7(twin.MetricName, `metrics: "`+name65+`" is not a name: a letter or _, then up to 63 letters, digits or _`)},
		{"protobuf name", with(telemetry("größe", 1)), seq7(twin.MetricName, `metrics: "größe" is not a name: a letter or _, then up to 63 letters, digits or _`)},
		{
			"protobuf name bytes", []byte("\x22\x0c\x0a\x01\xff\x11\x00\x00\x00\x00\x00\x00\x00\x00\x08\x03\x10\x07"),
			seq7(twin.MetricName, `metrics: "\xff" is not a name: a letter or _, then up to 63 letters, digits or _`),
		},
		{"msgpack name", withPack(m{"metrics": m{"a b": []int{1}}}), seq7(twin.MetricName, `metrics: "a b" is not a name: a letter or _, then up to 63 letters, digits or _`)},
		{"msgpack name type", withPack(m{"metrics": map[any]any{1: 1}}), seq7(twin.NotDecodable, `metrics: a name is a string, got an integer`)},

		{"not finite", []byte(`{"boot":3,"metrics":{"a":1,"b":1e999},"seq":7}`), seq7(twin.NotFinite, `metrics.b: +Inf is not a finite number`)},
		{"protobuf not finite", with(telemetry("a", math.NaN())), seq7(twin.NotFinite, `metrics.a: NaN is not a finite number`)},
		{"msgpack not finite", withPack(m{"metrics": m{"a": math.Inf(-1)}}), seq7(twin.NotFinite, `metrics.a: -Inf is not a finite number`)},

		{"value text", []byte(`{"boot":3,"metrics":{"a":"21.5","b":2},"seq":7}`), seq7(twin.NotDecodable, `metrics.a: expected a number or a boolean, got a string`)},
		{"value null", []byte(`{"boot":3,"metrics":{"a":null},"seq":7}`), seq7(twin.NotDecodable, `metrics.a: expected a number or a boolean, got null`)},
		{"value object", []byte(`{"boot":3,"metrics":{"a":{"b":[{}]}},"seq":7}`), seq7(twin.NotDecodable, `metrics.a: expected a number or a boolean, got an object`)},
		{"value twice", []byte(`{"boot":3,"metrics":{"a":1,"\u0061":1},"seq":7}`), seq7(twin.NotDecodable, `metrics.a: appears twice`)},
		{"msgpack value", withPack(m{"metrics": m{"a": []byte{1}}}), seq7(twin.NotDecodable, `metrics.a: expected a number or a boolean, got binary data`)},
		{"msgpack value twice", []byte("\x83\xa4boot\x03\xa3seq\x07\xa7metrics\x82\xa1a\x01\xa1a\x01"), seq7(twin.NotDecodable, `metrics.a: appears twice`)},
		{"metrics type", []byte(`{"boot":3,"metrics":[1],"seq":7}`), seq7(twin.NotDecodable, `metrics: expected an object, got an array`)},
		{"msgpack metrics type", withPack(m{"metrics": 1}), seq7(twin.NotDecodable, `metrics: expected a map, got an integer`)},
		{"metrics twice", []byte(`{"boot":3,"metrics":{"a":1},"metrics":{"b":1},"seq":7}`), seq7(twin.NotDecodable, `metrics: appears twice`)},
		{"too many metrics", []byte(`{"boot":3,"seq":7,"metrics":{` + manyMetrics(65) + `}}`), seq7(twin.TooManyMetrics, `metrics: more than 64 metrics in a sample`)},

		{"seq 0", []byte(`{"boot":3,"seq":0,"metrics":{"a":1}}`), &Refusal{Reason: twin.NumberRange, Detail: "seq: 0 is less than 1"}},
		{"seq negative", []byte(`{"boot":3,"seq":-7,"metrics":{"a":1}}`), &Refusal{Reason: twin.NumberRange, Detail: "seq: -7 is negative"}},
		{"seq fraction", []byte(`{"boot":3,"seq":7.0,"metrics":{"a":1}}`), &Refusal{Reason: twin.NumberRange, Detail: "seq: 7.0 is not an integer"}},
		{"seq large", []byte(`{"seq":18446744073709551617,"metrics":{"a":1}}`), &Refusal{Reason: twin.NumberRange, Detail: "seq: 18446744073709551617 is more than 2^63-1"}},
		{"seq text", []byte(`{"boot":3,"seq":"x","metrics":{"a":1}}`), &Refusal{Reason: twin.NotDecodable, Detail: "seq: expected an integer, got a string"}},
		{"seq twice", []byte(`{"boot":3,"seq":7,"seq":8,"metrics":{"a":1}}`), &Refusal{Reason: twin.NotDecodable, Detail: "seq: appears twice"}},
		{"protobuf seq 0", wireOf(t, &doppelv1.Telemetry{Seq: new(uint64), Metrics: map[string]float64{"a": 1}}), &Refusal{Reason: twin.NumberRange, Detail: "seq: 0 is less than 1"}},
		{"msgpack seq negative", pack(t, m{"seq": -7}), &Refusal{Reason: twin.NumberRange, Detail: "seq: -7 is negative"}},
		{"msgpack seq type", pack(t, m{"seq": true}), &Refusal{Reason: twin.NotDecodable, Detail: "seq: expected an integer, got a boolean"}},

		{"time in seconds", []byte(`{"boot":3,"seq":7,"time":1795341600,"metrics":{"a":1}}`), seq7(twin.TimeUnit, "time: 1795341600 looks like seconds; "+timeForms)},
		{"time in milliseconds", []byte(`{"boot":3,"seq":7,"time":1795341600000,"metrics":{"a":1}}`), seq7(twin.TimeUnit, "time: 1795341600000 looks like milliseconds; "+timeForms)},
		{"time in microseconds", []byte(`{"boot":3,"seq":7,"time":1795341600000000,"metrics":{"a":1}}`), seq7(twin.TimeUnit, "time: 1795341600000000 looks like microseconds; "+timeForms)},
		{"time 0", []byte(`{"boot":3,"seq":7,"time":0,"metrics":{"a":1}}`), seq7(twin.TimeUnit, "time: 0 is below 10^17; "+timeForms)},
		{"time negative", []byte(`{"boot":3,"seq":7,"time":-5,"metrics":{"a":1}}`), seq7(twin.TimeUnit, "time: -5 is negative; "+timeForms)},
		{"time just below", []byte(`{"boot":3,"seq":7,"time":99999999999999999,"metrics":{"a":1}}`), seq7(twin.TimeUnit, "time: 99999999999999999 looks like microseconds; "+timeForms)},
		{"time just above", []byte(`{"boot":3,"seq":7,"time":100000000000000000,"metrics":{"a":1}}`), seq7(twin.TimeTooOld, "time: 1973-03-03T09:46:40Z is before the year 2000")},
		{"time fraction", []byte(`{"boot":3,"seq":7,"time":1795341600.5,"metrics":{"a":1}}`), seq7(twin.NumberRange, "time: 1795341600.5 is not an integer; "+timeForms)},
		{"time large", []byte(`{"boot":3,"seq":7,"time":9223372036854775808,"metrics":{"a":1}}`), seq7(twin.NumberRange, "time: 9223372036854775808 does not fit 64 bits of nanoseconds")},
		{"time 1999", []byte(`{"boot":3,"seq":7,"time":"1999-12-31T23:59:59.999999999Z","metrics":{"a":1}}`), seq7(twin.TimeTooOld, "time: 1999-12-31T23:59:59.999999999Z is before the year 2000")},
		{
			"time ahead", []byte(`{"boot":3,"seq":7,"time":"` + future.Format(time.RFC3339Nano) + `","metrics":{"a":1}}`),
			seq7(twin.TimeInFuture, "time: 2026-11-22T10:10:00.000000001Z is more than 10 minutes ahead of the receive time 2026-11-22T10:00:00Z"),
		},
		{
			"time far ahead", []byte(`{"boot":3,"seq":7,"time":"9999-01-01T00:00:00Z","metrics":{"a":1}}`),
			seq7(twin.TimeInFuture, "time: 9999-01-01T00:00:00Z is more than 10 minutes ahead of the receive time 2026-11-22T10:00:00Z"),
		},
		{"time text", []byte(`{"boot":3,"seq":7,"time":"yesterday","metrics":{"a":1}}`), seq7(twin.NotDecodable, `time: "yesterday" is not RFC 3339; `+timeForms)},
		{"time without zone", []byte(`{"boot":3,"seq":7,"time":"2026-11-22T10:00:00","metrics":{"a":1}}`), seq7(twin.NotDecodable, `time: "2026-11-22T10:00:00" is not RFC 3339; `+timeForms)},
		{"time type", []byte(`{"boot":3,"seq":7,"time":[1],"metrics":{"a":1}}`), seq7(twin.NotDecodable, `time: expected a string or an integer, got an array; `+timeForms)},
		{"protobuf time", with(&doppelv1.Telemetry{Time: proto.Int64(-1)}), seq7(twin.TimeUnit, "time: -1 is negative; "+timeForms)},
		{"msgpack time", withPack(m{"time": 1795341600}), seq7(twin.TimeUnit, "time: 1795341600 looks like seconds; "+timeForms)},
		{"msgpack time old", withPack(m{"time": time.Unix(1, 5)}), seq7(twin.TimeTooOld, "time: 1970-01-01T00:00:01.000000005Z is before the year 2000")},
		{"msgpack time type", withPack(m{"time": []int{1}}), seq7(twin.NotDecodable, "time: expected an integer, a timestamp or a string, got an array; "+timeForms)},
		{"msgpack time ext", []byte("\x83\xa4boot\x03\xa3seq\x07\xa4time\xd4\x05\x00"), seq7(twin.NotDecodable, "time: extension type 5 of 1 bytes is no timestamp")},

		{"reported type", []byte(`{"boot":3,"seq":7,"reported":[1]}`), seq7(twin.NotDecodable, "reported: expected an object, got an array")},
		{"reported twice", []byte(`{"boot":3,"reported":{"a":[{"b":1,"b":1}]},"seq":7}`), seq7(twin.NotDecodable, "reported.a[0].b: appears twice")},
		{"reported deep", []byte(`{"boot":3,"reported":` + deep(11) + `,"seq":7}`), seq7(twin.NotDecodable, "reported.a.a.a.a.a.a.a.a.a.a: nested deeper than 10 levels")},
		{"reported number", []byte(`{"boot":3,"reported":{"a":-1e999},"seq":7}`), seq7(twin.NotFinite, "reported.a: -1e999 is not a finite number")},
		{
			"protobuf reported number", with(&doppelv1.Telemetry{Reported: &structpb.Struct{Fields: map[string]*structpb.Value{"a": structpb.NewNumberValue(math.NaN())}}}),
			seq7(twin.NotFinite, "reported.a: NaN is not a finite number"),
		},
		{
			"protobuf reported kind", with(&doppelv1.Telemetry{Reported: &structpb.Struct{Fields: map[string]*structpb.Value{"a": {}}}}),
			seq7(twin.NotDecodable, "reported.a: a Value of no kind"),
		},
		{"protobuf reported bytes", []byte("\x2a\x01\x0a\x08\x03\x10\x07"), seq7(twin.NotDecodable, "reported: not a google.protobuf.Struct of at most 10 levels")},
		{"msgpack reported", withPack(m{"reported": m{"a": m{"b": []byte{1}}}}), seq7(twin.NotDecodable, "reported.a.b: binary data has no JSON form")},
		{"msgpack reported text", withPack(m{"reported": m{"a": []any{1, "\xff"}}}), seq7(twin.NotDecodable, "reported.a[1]: the string is not UTF-8")},
		{"msgpack reported key", withPack(m{"reported": map[any]any{true: 1}}), seq7(twin.NotDecodable, "reported: a name is a string in UTF-8, got a boolean")},
		{"msgpack reported type", withPack(m{"reported": "x"}), seq7(twin.NotDecodable, "reported: expected a map, got a string")},

		{"first of two", []byte(`{"boot":3,"metrics":{"a-b":1,"c":null},"time":5,"seq":7}`), seq7(twin.MetricName, `metrics: "a-b" is not a name: a letter or _, then up to 63 letters, digits or _`)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			items, r := NewDecoder().Telemetry("", tt.payload, received)
			if r != nil {
				t.Fatalf("the whole message was refused: %v", r)
			}
			if diff := cmp.Diff([]Item{{Refusal: tt.want}}, items); diff != "" {
				t.Errorf("items (-want +got):\n%s", diff)
			}
		})
	}
}

// TestBatchGoesOn: a bad sample disturbs neither those before it nor those behind it.
func TestBatchGoesOn(t *testing.T) {
	type m = map[string]any
	good := func(seq uint64) Item {
		return Item{Sample: twin.Sample{
			Numbered: true, Boot: 3, Seq: seq, Time: received, Readings: []twin.Reading{{Name: "a", Value: 1}},
		}}
	}
	payloads := map[string][]byte{
		"json": []byte(`{"samples":[{"seq":1,"metrics":{"a":1}},{"metrics":{"a":"x","b":5},"seq":2},{"seq":3,"metrics":{"a":1}},7],"boot":3}`),
		"msgpack": pack(t, m{"boot": 3, "samples": []any{
			m{"seq": 1, "metrics": m{"a": 1}}, m{"seq": 2, "metrics": m{"a": "x"}}, m{"seq": 3, "metrics": m{"a": 1}}, 7,
		}}),
	}
	for name, payload := range payloads {
		items, r := NewDecoder().Telemetry("", payload, received)
		if r != nil {
			t.Fatalf("%s: %v", name, r)
		}
		object := map[string]string{"json": "an object, got a number", "msgpack": "a map, got an integer"}[name]
		want := []Item{
			good(1),
			{Refusal: &Refusal{
				Reason: twin.NotDecodable, Detail: "samples[1].metrics.a: expected a number or a boolean, got a string",
				Numbered: true, Boot: 3, Seq: 2,
			}},
			good(3),
			{Refusal: &Refusal{Reason: twin.NotDecodable, Detail: "samples[3]: expected " + object}},
		}
		if diff := cmp.Diff(want, items); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// TestMisplacedInSample: a boot in a sample of a batch would number it wrongly if it were ignored.
func TestMisplacedInSample(t *testing.T) {
	for _, payload := range []string{
		`{"samples":[{"boot":3,"seq":1,"metrics":{"a":1}}]}`,
		"\x81\xa7samples\x91\x83\xa4boot\x03\xa3seq\x01\xa7metrics\x81\xa1a\x01",
	} {
		items, r := NewDecoder().Telemetry("", []byte(payload), received)
		if r != nil {
			t.Fatal(r)
		}
		want := []Item{{Refusal: &Refusal{Reason: twin.NotDecodable, Detail: "samples[0].boot: stands beside samples, not in one"}}}
		if diff := cmp.Diff(want, items); diff != "" {
			t.Errorf("items (-want +got):\n%s", diff)
		}
	}
}
