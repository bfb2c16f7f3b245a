package alert

import "time"

// Kind is what a rule watches.
type Kind string

// The kinds of rules.
const (
	ZScore      Kind = "zscore"      // how far a metric lies from its baseline
	Threshold   Kind = "threshold"   // a metric's value
	Rate        Kind = "rate"        // a metric's change per second of event time, with its sign
	Stale       Kind = "stale"       // no data for too long
	Offline     Kind = "offline"     // the device or its last will says it is gone
	Gap         Kind = "gap"         // numbers given up on
	Numbering   Kind = "numbering"   // boots that went back
	DeadLetters Kind = "deadletters" // messages refused within a window
	Diverged    Kind = "diverged"    // what is desired and what is reported differ
	Expression  Kind = "expression"  // a predicate over the twin
)

// Level is one severity of a rule. A breach begins at Enter and ends at Exit, which lies on the
// quiet side of Enter; Exit 0 means the same as Enter.
type Level struct {
	Severity Severity
	// Enter and Exit are sigmas (zscore), units of the metric (threshold), units a second (rate),
	// missing numbers (gap), refused messages (deadletters), learned intervals of silence (stale). The
	// other kinds have none.
	Enter, Exit float64
	// Op of threshold and rate: ">" (also when empty), "<" or "outside". With "outside" the breach is
	// leaving [Low, High], and Exit is by how much the value must be back inside.
	Op        string
	Low, High float64
}

// Rule is what a person writes.
type Rule struct {
	ID      string // [a-z0-9.-]{1,64}
	Version uint64
	Kind    Kind
	Metric  string            // empty: every metric
	Device  string            // glob with * and ?; empty: every device
	Tags    map[string]string // all of them must be on the twin
	Levels  []Level

	ForSamples  uint32        // samples in breach, in a row, before it fires (0, 1: at once)
	ForDuration time.Duration // and how long the breach must last; with stale: how long is too long, in place of intervals
	MinDwell    time.Duration // least time it stays firing

	// EscalateAfter raises a firing alert by one severity, once, when nobody has acknowledged it for so long by
	// logged time, which is that of people (0: never). DeescalateAfter is how long, by event time, the readings must
	// have been below a severity's exit before the alert is lowered to a milder one (0: at once).
	EscalateAfter, DeescalateAfter time.Duration
	// An alert that fires more often than FlapCount times within FlapWindow (0: 10 min) is flapping: it stays
	// firing until it was quiet for FlapWindow. FlapCount 0: never.
	FlapCount  uint32
	FlapWindow time.Duration

	// Window of deadletters is what they are counted in, and how long after the last one the alert
	// resolves (0: 1 min); of stale it is the least silence that counts (0: 10 s), of gap how long after the last gap
	// the alert resolves (0: 5 min), of numbering for how long no refused boot may have come before an
	// accepted sample resolves it (0: 5 min). The other kinds have none.
	Window        time.Duration
	WindowSamples uint32 // the twin's baseline, which all rules share: 0 or 512
	MinSamples    uint32 // least samples behind a score (0: what the baseline demands)

	Expression string
	Predicate  Predicate // Expression compiled, by whoever can
	Mode       string    // live (also when empty), shadow or off
}

// Predicate is a compiled expression over a twin. The twin is passed as whatever view the compiler
// and the caller of Book.Evaluate agreed on.
type Predicate interface {
	Holds(twin any) (bool, error)
}

// Modes of rules.
const (
	ModeLive   = "live"
	ModeShadow = "shadow" // it runs, and nobody is notified
	ModeOff    = "off"
)

// Defaults of rules.
const (
	divergedFor    = 5 * time.Minute
	staleIntervals = 5
	staleFloor     = 10 * time.Second
	gapWindow      = 5 * time.Minute
	lettersWindow  = time.Minute
	manyLetters    = 5
	flapWindow     = 10 * time.Minute
	maxFlapCount   = 64
)

// Builtin returns the rules out of the box.
func Builtin() []Rule {
	return []Rule{
		{ID: "builtin.offline", Version: 1, Kind: Offline, Levels: []Level{{Severity: Warning}}},
		{ID: "builtin.stale", Version: 1, Kind: Stale, Window: staleFloor, Levels: []Level{{Severity: Warning, Enter: staleIntervals}}},
		{ID: "builtin.zscore", Version: 1, Kind: ZScore, Levels: []Level{
			{Severity: Warning, Enter: 4, Exit: 2},
			{Severity: Critical, Enter: 6, Exit: 2},
		}},
		{ID: "builtin.deadletters", Version: 1, Kind: DeadLetters, Window: lettersWindow, Levels: []Level{{Severity: Warning, Enter: manyLetters}}},
		{ID: "builtin.numbering", Version: 1, Kind: Numbering, Levels: []Level{{Severity: Warning}}},
		{ID: "builtin.diverged", Version: 1, Kind: Diverged, ForDuration: divergedFor, Mode: ModeOff, Levels: []Level{{Severity: Warning}}},
	}
}
