package codec

import (
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/doppel-iot/doppel/actors/alert"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// Rule is the public form of a rule.
func Rule(r *alert.Rule) *doppelv1.Rule {
	p := &doppelv1.Rule{
		Id:            r.ID,
		Version:       r.Version,
		Kind:          string(r.Kind),
		Metric:        r.Metric,
		Levels:        make(map[string]*doppelv1.Level, len(r.Levels)),
		ForSamples:    r.ForSamples,
		ForDuration:   duration(r.ForDuration),
		WindowSamples: r.WindowSamples,
		Window:        duration(r.Window),
		MinSamples:    r.MinSamples,
		Expression:    r.Expression,
		Mode:          r.Mode,
		MinDwell:      duration(r.MinDwell),

		EscalateAfter:   duration(r.EscalateAfter),
		DeescalateAfter: duration(r.DeescalateAfter),
		FlapCount:       r.FlapCount,
		FlapWindow:      duration(r.FlapWindow),
	}
	if p.GetMode() == "" {
		p.Mode = "live"
	}
	if r.Device != "" || len(r.Tags) > 0 {
		p.Match = &doppelv1.Match{Device: r.Device, Tags: r.Tags}
	}
	for _, l := range r.Levels {
		p.Levels[l.Severity.String()] = &doppelv1.Level{Enter: l.Enter, Exit: l.Exit, Op: l.Op, Low: l.Low, High: l.High}
	}
	return p
}

// duration is nil for 0, which means not set.
func duration(d time.Duration) *durationpb.Duration {
	if d == 0 {
		return nil
	}
	return durationpb.New(d)
}
