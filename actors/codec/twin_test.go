package codec

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/doppel-iot/doppel/actors/alert"
	"github.com/doppel-iot/doppel/actors/twin"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// take steps a twin through samples as its device sends them.
func take(t *testing.T, tw *twin.Twin, rules *alert.Set, payloads ...string) {
	t.Helper()
	d := NewDecoder()
	var out twin.Effects
	for i, payload := range payloads {
		now := received + int64(i)*1e9
		items, r := d.Telemetry("", []byte(payload), now)
		if r != nil {
			t.Fatal(r)
		}
		for j := range items {
			in := twin.Input{Kind: twin.KindSample, ReceivedAt: now, Sample: items[j].Sample}
			tw.Step(now, &in, rules, &out)
		}
	}
	// No later number came: the first one present is the start.
	now := received + int64(len(payloads))*1e9
	if in, due := tw.Wake(now, twin.SettledLimits()); due {
		tw.Step(now, &in, rules, &out)
	}
}

func TestTwin(t *testing.T) {
	tw := twin.New("pump-1", received-5e9)
	take(
		t, tw, nil,
		`{"boot":3,"seq":1,"time":"2026-11-22T09:59:00Z","metrics":{"on":true,"temperature":20},"reported":{"firmware":"1.2.3","net":{"up":true,"ports":[80,443.5]}}}`,
		`{"boot":3,"seq":2,"time":"2026-11-22T09:59:01Z","metrics":{"temperature":22}}`,
		`{"boot":3,"seq":2,"time":"2026-11-22T09:59:01Z","metrics":{"temperature":22}}`,
	)
	want := &doppelv1.Twin{
		Id: "pump-1", Etag: Etag(tw), Version: tw.Version(), ReportedVersion: tw.ReportedVersion(), Boot: 3, Seq: 2,
		Digest: tw.Digest(), SetDigest: tw.SetDigest(), Online: true,
		LastSeen:   &timestamppb.Timestamp{Seconds: received/1e9 + 1},
		CreateTime: &timestamppb.Timestamp{Seconds: received/1e9 - 5},
		Reported: must(structpb.NewStruct(map[string]any{
			"firmware": "1.2.3", "net": map[string]any{"up": true, "ports": []any{80, 443.5}},
		})),
		Metrics: map[string]*doppelv1.Metric{
			"on":          {Value: 1, Time: &timestamppb.Timestamp{Seconds: received/1e9 - 60}},
			"temperature": {Value: 22, Time: &timestamppb.Timestamp{Seconds: received/1e9 - 59}, Count: 1, Mean: 20, Min: 20, Max: 20},
		},
		Counters: &doppelv1.Counters{Applied: 2, Duplicate: 1},
	}
	got := Twin(tw)
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Errorf("twin (-want +got):\n%s", diff)
	}
	if got.GetDigest() == 0 || got.GetVersion() == 0 || got.GetReportedVersion() == 0 {
		t.Errorf("got digest %d, version %d, reported version %d; none of them may be 0", got.GetDigest(), got.GetVersion(), got.GetReportedVersion())
	}
}

// TestTwinNew: of a twin without any sample nothing is made up.
func TestTwinNew(t *testing.T) {
	want := &doppelv1.Twin{Id: "pump-1", Etag: Etag(twin.New("pump-1", received)), CreateTime: &timestamppb.Timestamp{Seconds: received / 1e9}, Counters: &doppelv1.Counters{}}
	if diff := cmp.Diff(want, Twin(twin.New("pump-1", received)), protocmp.Transform()); diff != "" {
		t.Errorf("twin (-want +got):\n%s", diff)
	}
}

// TestTwinScored: from the thirty-first sample on there are scores, and an alert that is open is named.
func TestTwinScored(t *testing.T) {
	rules, err := alert.NewSet(alert.Builtin())
	if err != nil {
		t.Fatal(err)
	}
	tw := twin.New("pump-1", received)
	var payloads []string
	for i := range 40 {
		payloads = append(payloads, `{"metrics":{"temperature":`+[]string{"20", "20.5", "21"}[i%3]+`}}`)
	}
	take(t, tw, rules, append(payloads, `{"metrics":{"temperature":90}}`)...)
	got := Twin(tw)
	m := got.GetMetrics()["temperature"]
	if m.Z == nil || m.Score == nil || m.GetZ() < 6 || m.GetScore() < 6 {
		t.Errorf("got metric %v, want z and score above 6", m)
	}
	open := tw.OpenAlerts()
	if len(open) != 1 {
		t.Fatalf("got %d open alerts, want 1", len(open))
	}
	if diff := cmp.Diff([]string{AlertID(open[0].ID)}, got.GetOpenAlerts()); diff != "" {
		t.Errorf("open alerts (-want +got):\n%s", diff)
	}
}

func TestAlert(t *testing.T) {
	a := goldenEvent().Effects.Transitions[0]
	a.ID, a.Reason = 0xab, "not \xff UTF-8"
	want := &doppelv1.Alert{
		Id: "00000000000000ab", Device: "pump-1", Rule: "builtin.zscore", RuleVersion: 1, Metric: "temperature",
		Severity: doppelv1.Severity_WARNING, State: doppelv1.AlertState_FIRING,
		CreateTime: &timestamppb.Timestamp{Seconds: received/1e9 - 2}, FireTime: &timestamppb.Timestamp{Seconds: received / 1e9},
		UpdateTime: &timestamppb.Timestamp{Seconds: received / 1e9}, Value: 21.5, Score: 4,
		BaselineCount: 512, BaselineMean: 20, BaselineStddev: 0.375, Boot: 3, Seq: 118, Reason: "not \uFFFD UTF-8",
	}
	got := Alert("pump-1", &a)
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Errorf("alert (-want +got):\n%s", diff)
	}
	if _, err := proto.Marshal(got); err != nil {
		t.Errorf("marshal: %v", err)
	}
	back, err := AlertFrom(got)
	a.Reason = want.GetReason()
	if diff := cmp.Diff(a, back); diff != "" || err != nil {
		t.Errorf("back: %v (-want +got):\n%s", err, diff)
	}
}

func TestAlertFromBadID(t *testing.T) {
	if _, err := AlertFrom(&doppelv1.Alert{Id: "pump"}); err == nil {
		t.Error("got nil, want an error")
	}
}
