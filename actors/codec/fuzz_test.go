package codec

import (
	"bytes"
	"encoding/json"
	"math"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/doppel-iot/doppel/actors/twin"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// checkItems checks what every decoder promises of what it accepts.
func checkItems(t *testing.T, items []Item) {
	t.Helper()
	if len(items) == 0 || len(items) > MaxSamples {
		t.Fatalf("got %d items", len(items))
	}
	for i := range items {
		s, r := &items[i].Sample, items[i].Refusal
		if r != nil {
			if r.Reason == "" || r.Detail == "" || !utf8.ValidString(r.Detail) || len(r.Detail) > 2000 {
				t.Fatalf("refusal %+v", r)
			}
			if r.Numbered != (r.Seq != 0) || r.Seq > math.MaxInt64 || r.Boot > math.MaxInt64 {
				t.Fatalf("number of refusal %+v", r)
			}
			continue
		}
		if s.Numbered != (s.Seq != 0) || s.Seq > math.MaxInt64 || s.Boot > math.MaxInt64 || !s.Numbered && s.Boot != 0 {
			t.Fatalf("number of %+v", s)
		}
		if s.Time < year2000*1e9 || s.Time > received+int64(maxAhead) || !s.Timed && s.Time != received {
			t.Fatalf("time of %+v", s)
		}
		if len(s.Readings) == 0 && s.Reported == nil || len(s.Readings) > MaxMetrics {
			t.Fatalf("content of %+v", s)
		}
		for j, reading := range s.Readings {
			if !validMetric([]byte(reading.Name)) || math.IsNaN(reading.Value) || math.IsInf(reading.Value, 0) {
				t.Fatalf("reading %+v", reading)
			}
			if j > 0 && s.Readings[j-1].Name >= reading.Name {
				t.Fatalf("order of %+v", s.Readings)
			}
		}
		if s.Reported != nil {
			checkPatch(t, s.Reported)
		}
	}
}

// checkPatch: a patch is an object in the form that decoding it again gives.
func checkPatch(t *testing.T, patch []byte) {
	t.Helper()
	var tree map[string]any
	if err := json.Unmarshal(patch, &tree); err != nil || tree == nil {
		t.Fatalf("patch %s: %v", patch, err)
	}
	if len(patch) > MaxMessage {
		return // escapes may grow
	}
	again, r := NewDecoder().Reported("", patch)
	if r != nil || !bytes.Equal(again, patch) {
		t.Fatalf("patch %s becomes %s, %v", patch, again, r)
	}
}

func FuzzTelemetryJSON(f *testing.F) {
	f.Add([]byte(`{"boot":3,"seq":118,"time":"2026-11-22T10:00:00.123456789Z","metrics":{"temperature":21.5,"on":true},"reported":{"firmware":"1.2.3","b":[1,{"c":null}],"a":-1.50e-3}}`))
	f.Add([]byte(`{"boot":3,"samples":[{"seq":118,"time":1795341600123456789,"metrics":{"temperature":21.5}},{"seq":0},{"metrics":{"a-b":1}}]}`))
	f.Add([]byte(`{"\u0062oot":"1","metrics":{"\ud83d\ude00":1,"a":1e999}}`))
	f.Fuzz(func(t *testing.T, payload []byte) {
		items, r := NewDecoder().Telemetry("application/json", payload, received)
		if r != nil {
			return
		}
		checkItems(t, items)
		dec := json.NewDecoder(bytes.NewReader(payload))
		dec.UseNumber()
		var tree map[string]any
		if err := dec.Decode(&tree); err != nil || !json.Valid(payload) {
			t.Fatalf("accepted %q, encoding/json says %v", payload, err)
		}
		if tree["samples"] != nil || items[0].Refusal != nil {
			return
		}
		metrics, _ := tree["metrics"].(map[string]any)
		if len(metrics) != len(items[0].Sample.Readings) {
			t.Fatalf("got %v from %s", items[0].Sample.Readings, payload)
		}
		for _, reading := range items[0].Sample.Readings {
			var want float64
			switch v := metrics[reading.Name].(type) {
			case json.Number:
				want, _ = strconv.ParseFloat(v.String(), 64)
			case bool:
				if v {
					want = 1
				}
			default:
				t.Fatalf("%s: got %v from %v", reading.Name, reading.Value, v)
			}
			if math.Float64bits(want) != math.Float64bits(reading.Value) {
				t.Fatalf("%s: got %v, want %v", reading.Name, reading.Value, want)
			}
		}
	})
}

func FuzzTelemetryProtobuf(f *testing.F) {
	f.Add([]byte("\x08\x03\x10\x76\x22\x0c\x0a\x01a\x11\x00\x00\x00\x00\x00\x80\x35\x40"))
	f.Add([]byte("\x08\x03\x32\x10\x08\x01\x1a\x0c\x0a\x01a\x11\x00\x00\x00\x00\x00\x80\x35\x40"))
	f.Add([]byte("\x2a\x0a\x0a\x08\x0a\x01a\x12\x03\x1a\x01b"))
	f.Fuzz(func(t *testing.T, payload []byte) {
		if items, r := NewDecoder().Telemetry("application/x-protobuf", payload, received); r == nil {
			checkItems(t, items)
		}
	})
}

func FuzzTelemetryMessagePack(f *testing.F) {
	f.Add([]byte("\x83\xa4boot\x03\xa3seq\x07\xa7metrics\x82\xa1a\x01\xa1b\xcb\x40\x35\x80\x00\x00\x00\x00\x00"))
	f.Add([]byte("\x81\xa7samples\x92\x82\xa4time\xd6\xff\x6b\x02\xbd\x20\xa7metrics\x81\xa1a\xc3\x81\xa8reported\x81\xa1a\x92\xc0\xd0\xff"))
	f.Fuzz(func(t *testing.T, payload []byte) {
		if items, r := NewDecoder().Telemetry("application/msgpack", payload, received); r == nil {
			checkItems(t, items)
		}
	})
}

func FuzzStatus(f *testing.F) {
	f.Add([]byte(`{"online":true,"boot":3,"session":17}`))
	f.Fuzz(func(t *testing.T, payload []byte) {
		st, ok, r := NewDecoder().Status(payload)
		if r != nil || !ok {
			return
		}
		var tree map[string]any
		if err := json.Unmarshal(payload, &tree); err != nil || tree["online"] != st.Online {
			t.Fatalf("got %+v from %q, %v", st, payload, err)
		}
	})
}

func FuzzReported(f *testing.F) {
	f.Add([]byte(`{"b":[1.50,-0,{}],"a":null,"c":{"z":"\u0000","y":1e400}}`))
	f.Fuzz(func(t *testing.T, payload []byte) {
		patch, r := NewDecoder().Reported("", payload)
		if r != nil {
			return
		}
		checkPatch(t, patch)
		var want, got any
		if err := json.Unmarshal(payload, &want); err != nil {
			t.Fatalf("accepted %q, encoding/json says %v", payload, err)
		}
		if err := json.Unmarshal(patch, &got); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("patch of %s (-want +got):\n%s", payload, diff)
		}
	})
}

// FuzzSyntax holds the scanner against encoding/json, which is as strict but for encodings.
func FuzzSyntax(f *testing.F) {
	for _, s := range []string{`[1,-0.5e+3,"a\n",true,false,null,{"a":[]}]`, `01`, `1.`, `-`, `.5`, `1e`, `[1,]`, `{"a":1,}`, `{,}`, `"\q"`, `nul`, `[}`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var s scanner
		s.reset([]byte(text))
		s.skip()
		s.close()
		valid := json.Valid([]byte(text))
		if s.problem == "" && !valid {
			t.Fatalf("accepted %q", text)
		}
		if s.problem != "" && valid && utf8.ValidString(text) && !strings.Contains(text, `\u`) && !strings.Contains(s.problem, "nested") {
			t.Fatalf("refused %q: %s", text, s.problem)
		}
	})
}

// FuzzNumber holds numbers against strconv.
func FuzzNumber(f *testing.F) {
	for _, s := range []string{"0", "-0", "21.5", "0.1", "1e22", "1e23", "123456789012345678", "9007199254740993", "1.7976931348623157e308", "5e-324", "1e999", "-2.5E-3", "0.000001e6"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if !json.Valid([]byte(text)) || text[0] != '-' && (text[0] < '0' || text[0] > '9') {
			return
		}
		var s scanner
		s.reset([]byte(text))
		n := s.number()
		if s.peek() != 0 || s.problem != "" {
			t.Fatalf("%q: stopped at %d: %s", text, s.i, s.problem)
		}
		token := strings.TrimRight(text, " \t\r\n")
		want, _ := strconv.ParseFloat(token, 64)
		if got := n.float(); math.Float64bits(got) != math.Float64bits(want) {
			t.Fatalf("%s: got %v, want %v", token, got, want)
		}
		exact, err := strconv.ParseUint(strings.TrimPrefix(token, "-"), 10, 64)
		if isInteger := err == nil; isInteger != (!n.fraction && !n.overflow) {
			t.Fatalf("%s: got fraction %v, overflow %v", token, n.fraction, n.overflow)
		}
		if err == nil && (n.abs != exact || n.negative != (token[0] == '-')) {
			t.Fatalf("%s: got %+v", token, n.integer)
		}
	})
}

// FuzzEvent: whatever can be read is read the same again after it was written.
func FuzzEvent(f *testing.F) {
	f.Add(AppendEvent(nil, goldenEvent()))
	f.Add(AppendEvent(nil, &Event{Kind: doppelv1.EventKind_EVENT_KIND_CLAIM, Claim: &Claim{"node-1", 7, 8}}))
	f.Add(AppendEvent(nil, &Event{Kind: doppelv1.EventKind_EVENT_KIND_GAP, N: 1, Input: twin.Input{Kind: twin.KindGap, Gap: twin.Gap{Boot: 1, UpTo: 9}}}))
	f.Fuzz(func(t *testing.T, value []byte) {
		var first, second EventDecoder
		var e, again Event
		if first.Decode(value, &e) != nil || e.Claim != nil && !utf8.ValidString(e.Claim.Node) || !utf8.ValidString(e.Input.Quarantine.Reason) {
			return
		}
		b := AppendEvent(nil, &e)
		if e.Kind > doppelv1.EventKind_EVENT_KIND_QUARANTINED {
			return // the content of a later version's kinds is not kept
		}
		if err := second.Decode(b, &again); err != nil {
			t.Fatalf("%x: %v", b, err)
		}
		if diff := cmp.Diff(e, again, equateEvents, cmp.Transformer("bytes", func(b []byte) string { return string(b) })); diff != "" {
			t.Fatalf("event (-first +again):\n%s", diff)
		}
	})
}
