package codec

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"pgregory.net/rapid"

	"github.com/doppel-iot/doppel/actors/alert"
	"github.com/doppel-iot/doppel/actors/twin"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

var equateEvents = cmp.Options{sameBits, cmpopts.IgnoreUnexported(twin.Effects{})}

// drawEvent draws a record of any kind, as an owner writes it.
func drawEvent(t *rapid.T) *Event {
	e := &Event{
		Kind:       doppelv1.EventKind(rapid.IntRange(1, len(doppelv1.EventKind_name)-1).Draw(t, "kind")),
		Epoch:      rapid.Uint64().Draw(t, "epoch"),
		N:          rapid.Uint64().Draw(t, "n"),
		Now:        rapid.Int64().Draw(t, "now"),
		SrcNext:    Position{rapid.Uint64().Draw(t, "offset"), rapid.Uint32().Draw(t, "index")},
		Digest:     rapid.Uint64().Draw(t, "digest"),
		SetDigest:  rapid.Uint64().Draw(t, "set"),
		Version:    rapid.Uint64().Draw(t, "version"),
		Duplicates: rapid.Uint32().Draw(t, "duplicates"),
	}
	e.Effects.Outcome = rapid.SampledFrom([]twin.Outcome{twin.Unchanged, twin.Applied, twin.Held, twin.Late, twin.Refuse}).Draw(t, "outcome")
	if e.Input.Kind = inputKind(e.Kind); e.Input.Kind != 0 {
		e.Input.ReceivedAt = e.Now
		if rapid.Bool().Draw(t, "later") {
			e.Input.ReceivedAt = rapid.Int64Range(1, math.MaxInt64).Draw(t, "received")
		}
	}
	number := rapid.Uint64()
	text := rapid.SliceOfN(rapid.Byte(), 1, 200)
	in := &e.Input
	switch e.Kind {
	case doppelv1.EventKind_EVENT_KIND_SAMPLE:
		in.Sample = drawSample(t, in.ReceivedAt)
	case doppelv1.EventKind_EVENT_KIND_REFUSED:
		in.Refused = twin.Refused{Numbered: rapid.Bool().Draw(t, "numbered"), Boot: number.Draw(t, "boot"), Seq: number.Draw(t, "seq"), Reason: twin.NotFinite, Count: rapid.Uint32().Draw(t, "count")}
	case doppelv1.EventKind_EVENT_KIND_GAP:
		in.Gap = twin.Gap{Boot: number.Draw(t, "boot"), UpTo: number.Draw(t, "up to"), Forced: rapid.Bool().Draw(t, "forced")}
	case doppelv1.EventKind_EVENT_KIND_STATUS:
		in.Status.Online = rapid.Bool().Draw(t, "online")
		if in.Status.HasBoot = rapid.Bool().Draw(t, "has boot"); in.Status.HasBoot {
			in.Status.Boot = number.Draw(t, "boot")
		}
		if in.Status.HasSession = rapid.Bool().Draw(t, "has session"); in.Status.HasSession {
			in.Status.Session = number.Draw(t, "session")
		}
	case doppelv1.EventKind_EVENT_KIND_REPORTED:
		in.Reported.Patch = text.Draw(t, "patch")
		if in.Reported.Numbered = rapid.Bool().Draw(t, "numbered"); in.Reported.Numbered {
			in.Reported.Boot, in.Reported.Seq = number.Draw(t, "boot"), number.Draw(t, "seq")
		}
	case doppelv1.EventKind_EVENT_KIND_CLAIM:
		e.Claim = &Claim{rapid.String().Draw(t, "node"), number.Draw(t, "incarnation"), number.Draw(t, "nonce")}
	case doppelv1.EventKind_EVENT_KIND_RULES:
		e.Rules = must(proto.Marshal(&doppelv1.RulesInput{Offset: 1 + number.Draw(t, "offset")/2, Rules: []*doppelv1.Rule{{Id: "r"}}}))
	case doppelv1.EventKind_EVENT_KIND_DESIRED:
		in.Desired = twin.Desired{Patch: text.Draw(t, "patch"), ReplaceTags: rapid.Bool().Draw(t, "replace")}
		if rapid.Bool().Draw(t, "tags") {
			in.Desired.Tags = rapid.MapOfN(rapid.String(), rapid.String(), 1, 4).Draw(t, "set")
		}
		if rapid.Bool().Draw(t, "removes") {
			in.Desired.RemovedTags = rapid.SliceOfN(rapid.String(), 1, 3).Draw(t, "removed")
		}
	case doppelv1.EventKind_EVENT_KIND_ANCHOR:
		e.Anchor = text.Draw(t, "anchor")
	case doppelv1.EventKind_EVENT_KIND_QUARANTINED:
		in.Quarantine.Reason = rapid.String().Draw(t, "reason")
	case doppelv1.EventKind_EVENT_KIND_ACKNOWLEDGED:
		in.Acknowledgement = alert.Acknowledgement{
			Alert: rapid.Uint64().Draw(t, "alert"), By: rapid.String().Draw(t, "by"), Comment: rapid.String().Draw(t, "comment"),
		}
	default: // kinds without content
	}
	drawEffects(t, e)
	return e
}

func drawSample(t *rapid.T, receivedAt int64) twin.Sample {
	s := twin.Sample{Time: receivedAt}
	if s.Numbered = rapid.Bool().Draw(t, "numbered"); s.Numbered {
		s.Boot, s.Seq = rapid.Uint64().Draw(t, "boot"), rapid.Uint64().Draw(t, "seq")
	}
	if s.Timed = rapid.Bool().Draw(t, "timed"); s.Timed {
		s.Time = rapid.Int64().Draw(t, "time")
	}
	for i := range rapid.IntRange(0, 20).Draw(t, "readings") {
		s.Readings = append(s.Readings, twin.Reading{Name: "metric_" + string(rune('a'+i)), Value: rapid.Float64().Draw(t, "value")})
	}
	if rapid.Bool().Draw(t, "reports") {
		s.Reported = rapid.SliceOfN(rapid.Byte(), 1, 200).Draw(t, "reported")
	}
	return s
}

func drawEffects(t *rapid.T, e *Event) {
	own := e.Kind == doppelv1.EventKind_EVENT_KIND_SAMPLE
	for range rapid.IntRange(0, 3).Draw(t, "applied") {
		s := drawSample(t, e.Now)
		a := twin.AppliedSample{Late: rapid.Bool().Draw(t, "late"), Count: rapid.Uint64().Draw(t, "count")}
		if own {
			s, a.Own, own = e.Input.Sample, true, false
		}
		a.Numbered, a.Boot, a.Seq, a.Time, a.Reported = s.Numbered, s.Boot, s.Seq, s.Time, s.Reported
		for _, r := range s.Readings {
			score := twin.ScoredReading{Name: r.Name, Value: r.Value, Z: math.NaN(), Score: math.NaN()}
			if rapid.Bool().Draw(t, "scored") {
				score.Z, score.Score = rapid.Float64().Draw(t, "z"), rapid.Float64().Draw(t, "score")
			}
			a.Readings = append(a.Readings, score)
		}
		e.Effects.Applied = append(e.Effects.Applied, a)
	}
	for range rapid.IntRange(0, 2).Draw(t, "transitions") {
		e.Effects.Transitions = append(e.Effects.Transitions, drawAlert(t))
	}
}

func drawAlert(t *rapid.T) alert.Alert {
	at := rapid.Int64()
	return alert.Alert{
		ID: rapid.Uint64().Draw(t, "id"), Rule: rapid.String().Draw(t, "rule"), RuleVersion: rapid.Uint64().Draw(t, "rule version"),
		Metric: rapid.String().Draw(t, "metric"), Severity: alert.Severity(rapid.IntRange(1, 3).Draw(t, "severity")), State: alert.State(rapid.IntRange(1, 3).Draw(t, "state")),
		CreateTime: at.Draw(t, "create"), FireTime: at.Draw(t, "fire"), ResolveTime: at.Draw(t, "resolve"), UpdateTime: at.Draw(t, "update"),
		Value: rapid.Float64().Draw(t, "value"), Score: rapid.Float64().Draw(t, "score"), BaselineCount: rapid.Uint64().Draw(t, "n"),
		BaselineMean: rapid.Float64().Draw(t, "mean"), BaselineStddev: rapid.Float64().Draw(t, "stddev"),
		Boot: rapid.Uint64().Draw(t, "boot"), Seq: rapid.Uint64().Draw(t, "seq"), Reason: rapid.String().Draw(t, "reason"),
		AcknowledgeTime: at.Draw(t, "acknowledged"), AcknowledgedBy: rapid.String().Draw(t, "by"), AcknowledgeComment: rapid.String().Draw(t, "comment"),
		Silence: rapid.String().Draw(t, "silence"), Shadow: rapid.Bool().Draw(t, "shadow"), Flapping: rapid.Bool().Draw(t, "flapping"),
		EscalateTime: at.Draw(t, "escalated"), Tags: drawTags(t),
	}
}

func drawTags(t *rapid.T) map[string]string {
	tags := rapid.MapOfN(rapid.String(), rapid.String(), 0, 3).Draw(t, "tags")
	if len(tags) == 0 {
		return nil
	}
	return tags
}

// generated is the record in the types that protoc made: what any other reader sees.
func generated(e *Event) *doppelv1.TwinEvent {
	p := &doppelv1.TwinEvent{
		Kind: e.Kind, Epoch: e.Epoch, N: e.N, Now: e.Now, Outcome: outcomeOf(e.Effects.Outcome),
		Digest: e.Digest, SetDigest: e.SetDigest, Version: e.Version, Duplicates: e.Duplicates,
	}
	if e.Input.Kind != 0 && e.Input.ReceivedAt != e.Now {
		p.ReceivedAt = e.Input.ReceivedAt
	}
	if e.SrcNext != (Position{}) {
		p.SrcNext = &doppelv1.IngestPosition{Offset: e.SrcNext.Offset, Index: e.SrcNext.Index}
	}
	in := &e.Input
	optional := func(v uint64, ok bool) *uint64 {
		if !ok {
			return nil
		}
		return &v
	}
	switch e.Kind {
	case doppelv1.EventKind_EVENT_KIND_SAMPLE:
		s := &in.Sample
		p.Sample = &doppelv1.SampleInput{Boot: optional(s.Boot, s.Numbered), Seq: optional(s.Seq, s.Numbered), Reported: s.Reported}
		if s.Timed {
			p.Sample.Time = &s.Time
		}
		for _, r := range s.Readings {
			p.Sample.Names, p.Sample.Values = append(p.Sample.Names, r.Name), append(p.Sample.Values, r.Value)
		}
	case doppelv1.EventKind_EVENT_KIND_REFUSED:
		p.Refused = &doppelv1.RefusedInput{Boot: in.Refused.Boot, Seq: in.Refused.Seq, Reason: string(in.Refused.Reason), Count: in.Refused.Count, Numbered: in.Refused.Numbered}
	case doppelv1.EventKind_EVENT_KIND_GAP:
		p.Gap = &doppelv1.GapInput{Boot: in.Gap.Boot, UpTo: in.Gap.UpTo, Forced: in.Gap.Forced}
	case doppelv1.EventKind_EVENT_KIND_STATUS:
		p.Status = &doppelv1.StatusInput{Online: in.Status.Online, Boot: optional(in.Status.Boot, in.Status.HasBoot), Session: optional(in.Status.Session, in.Status.HasSession)}
	case doppelv1.EventKind_EVENT_KIND_REPORTED:
		p.Reported = &doppelv1.ReportedInput{Boot: optional(in.Reported.Boot, in.Reported.Numbered), Seq: optional(in.Reported.Seq, in.Reported.Numbered), Patch: in.Reported.Patch}
	case doppelv1.EventKind_EVENT_KIND_CLAIM:
		p.Claim = &doppelv1.Claim{Node: e.Claim.Node, Incarnation: e.Claim.Incarnation, Nonce: e.Claim.Nonce}
	case doppelv1.EventKind_EVENT_KIND_RULES:
		p.Rules = new(doppelv1.RulesInput)
		must(0, proto.Unmarshal(e.Rules, p.GetRules()))
	case doppelv1.EventKind_EVENT_KIND_DESIRED:
		d := &in.Desired
		p.Desired = &doppelv1.DesiredInput{Patch: d.Patch, Tags: d.Tags, ReplaceTags: d.ReplaceTags, RemovedTags: d.RemovedTags}
	case doppelv1.EventKind_EVENT_KIND_ANCHOR:
		p.Anchor = e.Anchor
	case doppelv1.EventKind_EVENT_KIND_QUARANTINED:
		p.Quarantined = &doppelv1.QuarantinedInput{Reason: in.Quarantine.Reason}
	case doppelv1.EventKind_EVENT_KIND_ACKNOWLEDGED:
		k := &in.Acknowledgement
		p.Acknowledged = &doppelv1.AcknowledgedInput{Alert: k.Alert, By: k.By, Comment: k.Comment}
	default: // kinds without content
	}
	for i := range e.Effects.Applied {
		a := &e.Effects.Applied[i]
		q := &doppelv1.AppliedSample{Own: a.Own, Boot: optional(a.Boot, a.Numbered), Seq: optional(a.Seq, a.Numbered), Time: a.Time, Late: a.Late, Count: a.Count}
		if !a.Own {
			q.Reported = a.Reported
		}
		for _, r := range a.Readings {
			if !a.Own {
				q.Names, q.Values = append(q.Names, r.Name), append(q.Values, r.Value)
			}
			q.Z, q.Score = append(q.Z, r.Z), append(q.Score, r.Score)
		}
		p.Applied = append(p.Applied, q)
	}
	for i := range e.Effects.Transitions {
		p.Transitions = append(p.Transitions, Alert("", &e.Effects.Transitions[i]))
	}
	return p
}

// TestEventIsTheProtobufMessage: our bytes are those of the generated code, and both read them alike.
func TestEventIsTheProtobufMessage(t *testing.T) {
	var d EventDecoder
	rapid.Check(t, func(t *rapid.T) {
		e := drawEvent(t)
		want := generated(e)
		b := AppendEvent([]byte("before"), e)
		b, ok := bytes.CutPrefix(b, []byte("before"))
		if !ok {
			t.Fatal("dst was overwritten")
		}
		var p doppelv1.TwinEvent
		if err := proto.Unmarshal(b, &p); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, &p, protocmp.Transform(), sameBits); diff != "" {
			t.Fatalf("message (-want +got):\n%s", diff)
		}
		if wantBytes := must((proto.MarshalOptions{Deterministic: true}).Marshal(want)); !bytes.Equal(b, wantBytes) {
			t.Fatalf("got bytes\n%x, want\n%x", b, wantBytes)
		}
		var got Event
		if err := d.Decode(b, &got); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(*e, got, equateEvents); diff != "" {
			t.Fatalf("event (-want +got):\n%s", diff)
		}
	})
}

// TestDecodeOtherOrder: other writers may order fields otherwise, leave doubles unpacked, or add some.
func TestDecodeOtherOrder(t *testing.T) {
	e := goldenEvent()
	var other []byte
	w := wire{b: AppendEvent(nil, e)}
	for len(w.b) > 0 {
		field := w.b
		w.next()
		w.skip()
		other = append(bytes.Clone(field[:len(field)-len(w.b)]), other...)
	}
	other = append(other, "\xfa\x7f\x03new\x98\x75\x01"...)
	var d EventDecoder
	var got Event
	if err := d.Decode(other, &got); err != nil {
		t.Fatal(err)
	}
	// Repeated fields are now in reverse.
	reverse(e.Effects.Applied)
	if diff := cmp.Diff(*e, got, equateEvents); diff != "" {
		t.Errorf("event (-want +got):\n%s", diff)
	}
}

func reverse[T any](s []T) {
	swap := reflect.Swapper(s)
	for i, j := 0, len(s)-1; i < j; i, j = i+1, j-1 {
		swap(i, j)
	}
}

// TestDecodeUnpacked reads a sample whose values stand one by one, and scores left out.
func TestDecodeUnpacked(t *testing.T) {
	// kind sample; sample{names a, b; values 1, 2 unpacked}; applied{own}
	const record = "\x08\x02" + "\x3a\x18" + "\x22\x01a\x22\x01b" + "\x29\x00\x00\x00\x00\x00\x00\xf0\x3f" + "\x29\x00\x00\x00\x00\x00\x00\x00\x40" + "\xaa\x01\x02\x08\x01"
	var d EventDecoder
	var got Event
	if err := d.Decode([]byte(record), &got); err != nil {
		t.Fatal(err)
	}
	nan := math.NaN()
	want := []twin.AppliedSample{{Own: true, Readings: []twin.ScoredReading{scored("a", 1, nan, nan), scored("b", 2, nan, nan)}}}
	if diff := cmp.Diff(want, got.Effects.Applied, sameBits); diff != "" {
		t.Errorf("applied (-want +got):\n%s", diff)
	}
}

func TestUnreadable(t *testing.T) {
	for name, value := range map[string]string{
		"empty":                 "",
		"json":                  `{"device":"pump-1","value":21.5}`,
		"text":                  "hello world",
		"no kind":               "\x10\x05\x18\x01",
		"kind without content":  "\x08\x02\x18\x01",
		"content of another":    "\x08\x03\x3a\x00",
		"content of a tick":     "\x08\x05\x3a\x00",
		"two contents":          "\x08\x02\x3a\x00\x42\x00",
		"names without values":  "\x08\x02\x3a\x03\x22\x01a",
		"half a double":         "\x08\x02\x3a\x03\x2a\x01a",
		"bad claim":             "\x08\x01\x62\x01\x0a",
		"bad position":          "\x08\x05\x32\x01\x08",
		"bad applied":           "\x08\x05\xaa\x01\x01\x0a",
		"applied without z":     "\x08\x05\xaa\x01\x0b\x4a\x08\x00\x00\x00\x00\x00\x00\x00\x00\x38",
		"bad transition":        "\x08\x05\xca\x01\x01\x0a",
		"transition without id": "\x08\x05\xca\x01\x00",
		"cut":                   string(AppendEvent(nil, goldenEvent())[:50]),
	} {
		var d EventDecoder
		var e Event
		if err := d.Decode([]byte(value), &e); !errors.Is(err, ErrUnreadable) {
			t.Errorf("%s: got %v, want ErrUnreadable", name, err)
		}
	}
}

// TestUnknownKind: a kind of a later version still counts for epoch and n.
func TestUnknownKind(t *testing.T) {
	var d EventDecoder
	var e Event
	if err := d.Decode([]byte("\x08\x63\x10\x05\x18\x07"), &e); err != nil {
		t.Fatal(err)
	}
	if e.Kind != 99 || e.Epoch != 5 || e.N != 7 || e.Input.Kind != 0 {
		t.Errorf("got %+v", e)
	}
}

func scored(name string, value, z, score float64) twin.ScoredReading {
	return twin.ScoredReading{Name: name, Value: value, Z: z, Score: score}
}

// goldenEvent is a record with most of what a record may have.
func goldenEvent() *Event {
	return &Event{
		Kind: doppelv1.EventKind_EVENT_KIND_SAMPLE, Epoch: 4711, N: 12, Now: received + 5e6,
		SrcNext: Position{Offset: 300, Index: 2},
		Input: twin.Input{Kind: twin.KindSample, ReceivedAt: received, Sample: twin.Sample{
			Numbered: true, Timed: true, Boot: 3, Seq: 118, Time: received - 1e9 + 123456789,
			Readings: []twin.Reading{{Name: "temperature", Value: 21.5}, {Name: "vibration", Value: 0.02}},
			Reported: []byte(`{"firmware":"1.2.3"}`),
		}},
		Effects: twin.Effects{
			Outcome: twin.Applied,
			Applied: []twin.AppliedSample{
				{
					Own: true, Numbered: true, Boot: 3, Seq: 118, Time: received - 1e9 + 123456789, Count: 117,
					Readings: []twin.ScoredReading{scored("temperature", 21.5, 4.25, 4), scored("vibration", 0.02, math.NaN(), math.NaN())},
					Reported: []byte(`{"firmware":"1.2.3"}`),
				},
				{
					Numbered: true, Boot: 3, Seq: 119, Time: received, Count: 118,
					Readings: []twin.ScoredReading{scored("temperature", 21.25, -0.5, -0.25)},
				},
			},
			Transitions: []alert.Alert{{
				ID: 0x0123456789abcdef, Rule: "builtin.zscore", RuleVersion: 1, Metric: "temperature",
				Severity: alert.Warning, State: alert.Firing, CreateTime: received - 2e9, FireTime: received, UpdateTime: received,
				Value: 21.5, Score: 4, BaselineCount: 512, BaselineMean: 20, BaselineStddev: 0.375, Boot: 3, Seq: 118,
				Reason: "temperature is 4.25 standard deviations above its mean",
			}},
		},
		Digest: 0xfeedfacecafebeef, SetDigest: 1, Version: 120, Duplicates: 2,
	}
}

// TestGolden: records written by this version stay readable. The file is never written anew; a record
// that a later version writes otherwise gets a file of its own.
func TestGolden(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("testdata", "event.hex"))
	if err != nil {
		t.Fatal(err)
	}
	want, err := hex.DecodeString(strings.Join(strings.Fields(string(text)), ""))
	if err != nil {
		t.Fatal(err)
	}
	e := goldenEvent()
	if got := AppendEvent(nil, e); !bytes.Equal(got, want) {
		t.Errorf("got bytes\n%x, want\n%x", got, want)
	}
	var d EventDecoder
	var got Event
	if err := d.Decode(want, &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(*e, got, equateEvents); diff != "" {
		t.Errorf("event (-want +got):\n%s", diff)
	}
}
