package host

import (
	"math"
	"slices"

	"github.com/doppel-iot/doppel/actors/alert"
	"github.com/doppel-iot/doppel/actors/twin"
)

// sameEffects says whether a replay gave what was recorded (R5), as far as anybody has seen it: what
// was applied, its scores, and the transitions of alerts. Digests and versions are compared beside it.
func sameEffects(got, recorded *twin.Effects) bool {
	return got.Outcome == recorded.Outcome && got.Tell == recorded.Tell &&
		slices.EqualFunc(got.Applied, recorded.Applied, sameApplied) &&
		slices.EqualFunc(got.Transitions, recorded.Transitions, sameTransition)
}

func sameApplied(a, b twin.AppliedSample) bool {
	return a.Own == b.Own && a.Late == b.Late && a.Numbered == b.Numbered && a.Boot == b.Boot && a.Seq == b.Seq &&
		a.Time == b.Time && a.Count == b.Count && slices.EqualFunc(a.Readings, b.Readings, sameReading)
}

func sameReading(a, b twin.ScoredReading) bool {
	return a.Name == b.Name && sameFloat(a.Value, b.Value) && sameFloat(a.Z, b.Z) && sameFloat(a.Score, b.Score)
}

func sameTransition(a, b alert.Alert) bool {
	return a.ID == b.ID && a.Rule == b.Rule && a.RuleVersion == b.RuleVersion && a.Metric == b.Metric &&
		a.Severity == b.Severity && a.State == b.State && a.UpdateTime == b.UpdateTime &&
		sameFloat(a.Value, b.Value) && sameFloat(a.Score, b.Score) &&
		a.AcknowledgeTime == b.AcknowledgeTime && a.AcknowledgedBy == b.AcknowledgedBy && a.AcknowledgeComment == b.AcknowledgeComment &&
		a.Silence == b.Silence && a.Shadow == b.Shadow && a.Flapping == b.Flapping && a.EscalateTime == b.EscalateTime
}

// sameFloat compares bit for bit, but for the many ways to write "not a number".
func sameFloat(a, b float64) bool {
	return math.Float64bits(a) == math.Float64bits(b) || math.IsNaN(a) && math.IsNaN(b)
}
