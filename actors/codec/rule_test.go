package codec

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/doppel-iot/doppel/actors/alert"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

func TestRule(t *testing.T) {
	got := Rule(&alert.Rule{
		ID: "hot-pump", Version: 3, Kind: alert.ZScore, Metric: "temperature",
		Device: "pump-*", Tags: map[string]string{"site": "brno"},
		Levels:     []alert.Level{{Severity: alert.Warning, Enter: 4, Exit: 2}, {Severity: alert.Critical, Enter: 6, Exit: 3}},
		ForSamples: 2, MinDwell: time.Minute,
	})
	want := &doppelv1.Rule{
		Id: "hot-pump", Version: 3, Kind: "zscore", Metric: "temperature", Mode: "live",
		Match:      &doppelv1.Match{Device: "pump-*", Tags: map[string]string{"site": "brno"}},
		Levels:     map[string]*doppelv1.Level{"warning": {Enter: 4, Exit: 2}, "critical": {Enter: 6, Exit: 3}},
		ForSamples: 2, MinDwell: durationpb.New(time.Minute),
	}
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}
