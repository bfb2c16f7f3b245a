package codec

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"github.com/doppel-iot/doppel/actors/alert"
	"github.com/doppel-iot/doppel/actors/twin"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

var update = flag.Bool("update", false, "write the golden files that do not exist yet: those of new records")

// TestGoldenEvents: a record of each kind, as the first version that had it wrote it, stays readable.
// When a later version writes one otherwise, its example here moves to a file of a new name, and the
// old file is from then on only read.
func TestGoldenEvents(t *testing.T) {
	events := goldenEvents()
	for number, name := range doppelv1.EventKind_name {
		if number == 0 {
			continue
		}
		kind := strings.ToLower(strings.TrimPrefix(name, "EVENT_KIND_"))
		e, ok := events[doppelv1.EventKind(number)]
		if !ok {
			t.Errorf("no example of kind %s", kind)
			continue
		}
		stored := stored(t, "event-"+kind, AppendEvent(nil, e))
		var d EventDecoder
		var got Event
		if err := d.Decode(stored, &got); err != nil {
			t.Errorf("%s: %v", kind, err)
			continue
		}
		if diff := cmp.Diff(*e, got, equateEvents); diff != "" {
			t.Errorf("%s (-want +got):\n%s", kind, diff)
		}
	}
}

func TestGoldenCheckpoint(t *testing.T) {
	c := goldenCheckpoint()
	var d CheckpointDecoder
	var got Checkpoint
	if err := d.Decode(stored(t, "checkpoint", AppendCheckpoint(nil, c)), &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(*c, got, sameBits); diff != "" {
		t.Errorf("checkpoint (-want +got):\n%s", diff)
	}
}

func TestGoldenFloor(t *testing.T) {
	f := goldenFloor()
	got, err := DecodeFloor(stored(t, "floor", AppendFloor(nil, f)))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(*f, got); diff != "" {
		t.Errorf("floor (-want +got):\n%s", diff)
	}
}

// stored is what a golden file holds; what is written now must be the same.
func stored(t *testing.T, name string, written []byte) []byte {
	t.Helper()
	file := filepath.Join("testdata", "stored", "v1-"+name+".hex")
	if *update {
		writeNew(t, file, written)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	b, err := hex.DecodeString(strings.Join(strings.Fields(string(text)), ""))
	if err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	if !bytes.Equal(b, written) {
		t.Errorf("%s: the same is written differently now:\n%x\nwant:\n%x", file, written, b)
	}
	return b
}

// writeNew writes a file unless there is one.
func writeNew(t *testing.T, file string, b []byte) {
	t.Helper()
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for len(b) > 0 {
		n := min(len(b), 48)
		if _, err := fmt.Fprintf(f, "%x\n", b[:n]); err != nil {
			t.Fatal(err)
		}
		b = b[n:]
	}
}

// goldenEvents is a record of each kind.
func goldenEvents() map[doppelv1.EventKind]*Event {
	input := func(in twin.Input) *Event {
		in.ReceivedAt = received
		return &Event{
			Kind: KindOf(in.Kind), Epoch: 4711, N: 13, Now: received + 6e6, Input: in, Effects: twin.Effects{Outcome: twin.Applied},
			Digest: 0xfeedfacecafebeef, SetDigest: 2, Version: 121,
		}
	}
	partition := func(kind doppelv1.EventKind) *Event {
		return &Event{Kind: kind, Epoch: 4711, N: 14, Now: received + 7e6, SrcNext: Position{Offset: 301}}
	}
	events := map[doppelv1.EventKind]*Event{
		doppelv1.EventKind_EVENT_KIND_SAMPLE: goldenEvent(),
		doppelv1.EventKind_EVENT_KIND_REFUSED: input(twin.Input{Kind: twin.KindRefused, Refused: twin.Refused{
			Numbered: true, Boot: 3, Seq: 118, Reason: twin.StaleBoot, Count: 1,
		}}),
		doppelv1.EventKind_EVENT_KIND_GAP:  input(twin.Input{Kind: twin.KindGap, Gap: twin.Gap{Boot: 3, UpTo: 130, Forced: true}}),
		doppelv1.EventKind_EVENT_KIND_TICK: input(twin.Input{Kind: twin.KindTick}),
		doppelv1.EventKind_EVENT_KIND_STATUS: input(twin.Input{Kind: twin.KindStatus, Status: twin.Status{
			Online: true, HasBoot: true, HasSession: true, Boot: 3, Session: 17,
		}}),
		doppelv1.EventKind_EVENT_KIND_REPORTED: input(twin.Input{Kind: twin.KindReported, Reported: twin.Reported{
			Numbered: true, Boot: 1, Seq: 4, Patch: []byte(`{"firmware":"1.2.3"}`),
		}}),
		doppelv1.EventKind_EVENT_KIND_QUARANTINED: input(twin.Input{Kind: twin.KindQuarantined, Quarantine: twin.Quarantine{Reason: "index out of range"}}),
		doppelv1.EventKind_EVENT_KIND_REVIEWED:    input(twin.Input{Kind: twin.KindReviewed}),
		doppelv1.EventKind_EVENT_KIND_ACKNOWLEDGED: input(twin.Input{Kind: twin.KindAcknowledged, Acknowledgement: alert.Acknowledgement{
			Alert: 0x0123456789abcdef, By: "eva", Comment: "on my way",
		}}),
		doppelv1.EventKind_EVENT_KIND_RESET:   input(twin.Input{Kind: twin.KindReset}),
		doppelv1.EventKind_EVENT_KIND_ANCHOR:  input(twin.Input{Kind: twin.KindAnchor}),
		doppelv1.EventKind_EVENT_KIND_DELETED: {Kind: doppelv1.EventKind_EVENT_KIND_DELETED, Epoch: 4711, N: 15, Now: received, Input: twin.Input{Kind: twin.KindDeleted, ReceivedAt: received}},
		doppelv1.EventKind_EVENT_KIND_CLAIM:   {Kind: doppelv1.EventKind_EVENT_KIND_CLAIM, Now: received, Claim: &Claim{Node: "node-1", Incarnation: 5, Nonce: 0xabc}},
		doppelv1.EventKind_EVENT_KIND_RULES:   partition(doppelv1.EventKind_EVENT_KIND_RULES),
		doppelv1.EventKind_EVENT_KIND_DESIRED: {
			Kind: doppelv1.EventKind_EVENT_KIND_DESIRED, Epoch: 4711, N: 16, Now: received, Version: 122,
			Input: twin.Input{Kind: twin.KindDesired, ReceivedAt: received, Desired: twin.Desired{
				Patch: []byte(`{"rate":10}`), Tags: map[string]string{"site": "brno"},
			}},
		},
		doppelv1.EventKind_EVENT_KIND_UNSETTLED: partition(doppelv1.EventKind_EVENT_KIND_UNSETTLED),
		doppelv1.EventKind_EVENT_KIND_SETTLED:   partition(doppelv1.EventKind_EVENT_KIND_SETTLED),
	}
	anchor := events[doppelv1.EventKind_EVENT_KIND_ANCHOR]
	anchor.Anchor = []byte{2, 0, 1, 2, 3}
	must := func(m proto.Message) []byte { return must(proto.MarshalOptions{Deterministic: true}.Marshal(m)) }
	events[doppelv1.EventKind_EVENT_KIND_RULES].Rules = must(&doppelv1.RulesInput{Offset: 9, Rules: []*doppelv1.Rule{{
		Id: "hot", Version: 2, Kind: "threshold", Metric: "temperature", Levels: map[string]*doppelv1.Level{"warning": {Enter: 80, Exit: 75, Op: ">"}},
	}}})
	return events
}

func goldenCheckpoint() *Checkpoint {
	firing := goldenEvent().Effects.Transitions[0]
	resolved := alert.Alert{
		ID: 7, Rule: "builtin.numbering", RuleVersion: 1, Severity: alert.Warning, State: alert.Resolved,
		CreateTime: received - 9e9, FireTime: received - 9e9, ResolveTime: received - 3e9, UpdateTime: received - 3e9,
		Value: 3, Boot: 3, Seq: 118, Reason: "the twin was reset and accepts numbering anew",
	}
	return &Checkpoint{
		Epoch: 4711, Asof: 5000, Cursor: Cursor{Next: 5001, Epoch: 4711, N: 289}, Version: 2, Twin: []byte{2, 0, 1, 2, 3},
		Alerts: []alert.Alert{firing, resolved},
	}
}

func goldenFloor() *Floor {
	return &Floor{
		Epoch: 4711, Start: Cursor{Next: 4500, Epoch: 4300, N: 199}, StateOffset: 77, LogOffset: 5000,
		State:       PartitionState{SrcNext: Position{Offset: 301, Index: 2}, RulesOffset: 9, Now: received, Unsettled: true},
		EffectsNext: 4990,
	}
}
