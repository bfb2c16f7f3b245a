// Package alert is the life cycle of alerts: rules, and what one twin remembers of them.
//
// PURE: no I/O, no clock, no goroutines. Time comes with every call, as event time where there is
// data and as the logged time of a tick where there is none.
package alert

// Severity of an alert or level; the numbers are those of the public API.
type Severity uint8

// Severities, mildest first.
const (
	Info     Severity = 1
	Warning  Severity = 2
	Critical Severity = 3
)

// String is the name people use.
func (s Severity) String() string {
	switch s {
	case Info:
		return "info"
	case Warning:
		return "warning"
	case Critical:
		return "critical"
	default:
		return "unknown"
	}
}

// State of an alert; the numbers are those of the public API.
type State uint8

// The life cycle.
const (
	Pending  State = 1
	Firing   State = 2
	Resolved State = 3
)

// String is the state's name in lower case.
func (s State) String() string {
	switch s {
	case Pending:
		return "pending"
	case Firing:
		return "firing"
	case Resolved:
		return "resolved"
	default:
		return "unknown"
	}
}

// Alert is one alert of one twin as it stands after a transition. All times are unix nanoseconds of
// logged inputs, 0 meaning not yet.
type Alert struct {
	ID          uint64 // shown as 16 hex digits
	Rule        string
	RuleVersion uint64
	Metric      string // empty for rules that watch no metric
	Severity    Severity
	State       State

	CreateTime, FireTime, ResolveTime, UpdateTime int64

	Value, Score   float64
	BaselineCount  uint64
	BaselineMean   float64
	BaselineStddev float64
	Boot, Seq      uint64 // sample that caused the last transition
	Reason         string // one sentence for people

	// Who looks after it, as one acknowledgement said; fields and not states.
	AcknowledgeTime    int64
	AcknowledgedBy     string
	AcknowledgeComment string

	Silence      string // id of the silence that holds it; empty: none
	Shadow       bool   // its rule runs in shadow
	Flapping     bool   // it fired too often and stays until it has been quiet
	EscalateTime int64  // when its severity was raised because nobody had acknowledged it

	// Tags of the twin at the transition; shared, nobody changes them. Open alerts of a Book have none.
	Tags map[string]string
}

// Silenced says that a silence holds it.
func (a *Alert) Silenced() bool { return a.Silence != "" }
