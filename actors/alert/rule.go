package alert

import "time"

// Kind is what a rule watches.
type Kind string

// The kinds of rules.
const (
	ZScore     Kind = "zscore"     // how far a metric lies from its baseline
	Threshold  Kind = "threshold"  // a metric's value
	Rate       Kind = "rate"       // a metric's change per second of event time
	Stale      Kind = "stale"      // no data for too long
	Offline    Kind = "offline"    // the device or its last will says it is gone
	Gap        Kind = "gap"        // numbers given up on
	Expression Kind = "expression" // a predicate over the twin
)

// Level is one severity of a rule. A breach begins at Enter and ends at Exit, which lies on the
// quiet side of Enter; Exit 0 means the same as Enter.
type Level struct {
	Severity    Severity
	Enter, Exit float64
	// Op of threshold and rate: ">" (also when empty), "<" or "outside". With "outside" the breach is
	// leaving [Low, High], and Exit is by how much the value must be back inside.
	Op        string
	Low, High float64
}

// Rule is what a person writes. See Set for what each kind makes of its fields.
type Rule struct {
	ID      string
	Version uint64
	Kind    Kind
	Metric  string            // empty: every metric
	Device  string            // glob with * and ?; empty: every device
	Tags    map[string]string // every one must be on the twin
	Levels  []Level

	ForSamples  uint32        // breaches in a row before it fires (0, 1: at once)
	ForDuration time.Duration // and how long they must last
	MinDwell    time.Duration // least time it stays firing

	Window        time.Duration
	WindowSamples uint32
	MinSamples    uint32
	Expression    string
	Mode          string // live (also when empty) or off
}

// Builtin returns the rules out of the box.
func Builtin() []Rule {
	return []Rule{
		{ID: "builtin.zscore", Version: 1, Kind: ZScore, Levels: []Level{
			{Severity: Warning, Enter: 4, Exit: 2},
			{Severity: Critical, Enter: 6, Exit: 2},
		}},
		{ID: "builtin.offline", Version: 1, Kind: Offline, Levels: []Level{{Severity: Warning}}},
		{ID: "builtin.stale", Version: 1, Kind: Stale, Window: 10 * time.Second, Levels: []Level{{Severity: Warning, Enter: 5}}},
	}
}
