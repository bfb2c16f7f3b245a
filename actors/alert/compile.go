package alert

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"
)

// Operations of a level. Reach is not for people: zscore, gap and the yes-or-no kinds have it.
const (
	opAbove   = ">"
	opBelow   = "<"
	opOutside = "outside"
	opReach   = ">="
)

// baselineSamples is the window of the baseline that all rules of a twin share.
const baselineSamples = 512

func compile(r Rule) (*compiled, error) {
	if !validID(r.ID) {
		return nil, errors.New("id: want 1 to 64 of a-z, 0-9, dot and hyphen")
	}
	if err := checkMode(&r); err != nil {
		return nil, err
	}
	if err := checkTimes(&r); err != nil {
		return nil, err
	}
	if err := checkFields(&r); err != nil {
		return nil, err
	}
	r.Levels = slices.Clone(r.Levels)
	slices.SortStableFunc(r.Levels, func(a, b Level) int { return cmp.Compare(a.Severity, b.Severity) })
	if err := compileLevels(&r); err != nil {
		return nil, err
	}
	c := &compiled{Rule: r, everyone: (r.Device == "" || r.Device == "*") && len(r.Tags) == 0}
	switch r.Kind {
	case Stale:
		c.Window = cmp.Or(c.Window, staleFloor)
		c.intervals, c.Levels[0].Enter, c.Levels[0].Exit = c.Levels[0].Enter, 1, 1
	case Gap, Numbering:
		c.Window = cmp.Or(c.Window, gapWindow)
	case DeadLetters:
		c.Window = cmp.Or(c.Window, lettersWindow)
	case ZScore, Threshold, Rate, Offline, Diverged, Expression:
	}
	if c.FlapCount > 0 {
		c.FlapWindow = cmp.Or(c.FlapWindow, flapWindow)
	}
	return c, nil
}

func validID(id string) bool {
	for _, c := range []byte(id) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '.' && c != '-' {
			return false
		}
	}
	return id != "" && len(id) <= 64
}

func checkMode(r *Rule) error {
	switch r.Mode {
	case "", ModeLive, ModeShadow, ModeOff:
		return nil
	default:
		return fmt.Errorf("mode: %q is unknown: use live, shadow or off", r.Mode)
	}
}

func checkTimes(r *Rule) error {
	for _, d := range []struct {
		field string
		value time.Duration
	}{
		{"for_duration", r.ForDuration},
		{"min_dwell", r.MinDwell},
		{"window", r.Window},
		{"escalate_after", r.EscalateAfter},
		{"deescalate_after", r.DeescalateAfter},
		{"flap_window", r.FlapWindow},
	} {
		if d.value < 0 || d.value > 366*24*time.Hour {
			return fmt.Errorf("%s: %v is out of range: want 0 to 366 days", d.field, d.value)
		}
	}
	if r.FlapCount > maxFlapCount {
		return fmt.Errorf("flap_count: %d is out of range: want 0 to %d", r.FlapCount, maxFlapCount)
	}
	if r.FlapWindow != 0 && r.FlapCount == 0 {
		return errors.New("flap_window: nothing is counted in it: set flap_count, too")
	}
	return nil
}

// checkFields refuses fields that the kind would ignore.
func checkFields(r *Rule) error {
	switch r.Kind {
	case ZScore, Threshold, Rate, Expression:
		if r.Window != 0 {
			return fmt.Errorf("window: %s rules have none: leave it out", r.Kind)
		}
	case Stale, Offline, Gap, Numbering, DeadLetters, Diverged:
		if r.Metric != "" {
			return fmt.Errorf("metric: %s rules watch the device, not a metric: leave it out", r.Kind)
		}
		if r.ForSamples > 1 {
			return fmt.Errorf("for_samples: %s rules see no samples: leave it out", r.Kind)
		}
	default:
		return fmt.Errorf("kind: %q is unknown: use zscore, threshold, rate, stale, offline, gap, numbering, deadletters, diverged or expression", r.Kind)
	}
	switch {
	case r.DeescalateAfter != 0 && !readings(r.Kind):
		return fmt.Errorf("deescalate_after: %s rules see no readings: leave it out", r.Kind)
	case (r.Kind == Offline || r.Kind == Diverged) && r.Window != 0:
		return fmt.Errorf("window: %s rules have none: leave it out", r.Kind)
	case r.Kind == Gap && r.ForDuration != 0:
		return errors.New("for_duration: a gap does not last: leave it out")
	case r.Kind == Numbering && r.ForDuration != 0:
		return errors.New("for_duration: a numbering goes back at once: leave it out")
	case r.Kind == DeadLetters && r.ForDuration != 0:
		return errors.New("for_duration: dead letters are counted in a window: set that and leave it out")
	case r.Kind == Expression && r.Metric != "":
		return errors.New("metric: an expression names its metrics itself: leave it out")
	case r.Kind == Expression && r.Predicate == nil:
		return errors.New("expression: it has not been compiled: this node cannot run expression rules, use another kind")
	case r.Kind != Expression && r.Expression != "":
		return fmt.Errorf("expression: %s rules have none: leave it out, or set kind to expression", r.Kind)
	case r.WindowSamples != 0 && r.WindowSamples != baselineSamples:
		return fmt.Errorf("window_samples: %d: all rules share the twin's baseline of %d samples: leave it out", r.WindowSamples, baselineSamples)
	}
	return nil
}

// compileLevels checks sorted levels and fills in what they leave out.
func compileLevels(r *Rule) error {
	if len(r.Levels) == 0 {
		return errors.New("levels: there is none: add at least one of info, warning and critical")
	}
	if len(r.Levels) > 1 && (r.Kind == Stale || r.Kind == Offline || r.Kind == Numbering || r.Kind == Diverged || r.Kind == Expression) {
		return fmt.Errorf("levels: %s is or is not, so it has one severity: keep one", r.Kind)
	}
	for i := range r.Levels {
		l := &r.Levels[i]
		if l.Severity < Info || l.Severity > Critical {
			return fmt.Errorf("levels: severity %d is unknown: use info, warning or critical", l.Severity)
		}
		if i > 0 && l.Severity == r.Levels[i-1].Severity {
			return fmt.Errorf("levels: %s is there twice: keep one", l.Severity)
		}
		for _, v := range []float64{l.Enter, l.Exit, l.Low, l.High} {
			if math.IsNaN(v) || math.IsInf(v, 0) {
				return fmt.Errorf("levels.%s: a bound is not finite: use a number", l.Severity)
			}
		}
		if err := compileLevel(r, l); err != nil {
			return fmt.Errorf("levels.%s.%w", l.Severity, err)
		}
		if i > 0 && !beyond(l, &r.Levels[i-1]) {
			return fmt.Errorf("levels.%s: it is entered before %s: make it the stricter one", l.Severity, r.Levels[i-1].Severity)
		}
	}
	return nil
}

func compileLevel(r *Rule, l *Level) error {
	switch r.Kind {
	case Threshold, Rate:
		return compileBound(l)
	case Stale:
		if l.Exit != 0 || l.Op != "" {
			return errors.New("exit: silence ends with data: leave exit and op out")
		}
		if l.Enter == 0 {
			l.Enter = staleIntervals
		}
		if l.Enter < 1 {
			return fmt.Errorf("enter: %v: a silence must be at least 1 interval long", l.Enter)
		}
		l.Op = opReach
		return nil
	case Offline, Numbering, Diverged, Expression:
		if l.Enter != 0 || l.Exit != 0 {
			return fmt.Errorf("enter: %s rules have no bounds: leave enter and exit out", r.Kind)
		}
		l.Enter, l.Exit, l.Op = 1, 1, opReach
		return nil
	case Gap:
		if l.Enter == 0 {
			l.Enter = 1
		}
	case DeadLetters:
		if l.Exit != 0 {
			return errors.New("exit: the alert ends when no letter came for the window: leave it out")
		}
		if l.Enter == 0 {
			l.Enter = manyLetters
		}
	case ZScore:
	}
	if l.Op != "" {
		return fmt.Errorf("op: %s rules have none: leave it out", r.Kind)
	}
	if l.Enter <= 0 {
		return fmt.Errorf("enter: %v: want more than 0", l.Enter)
	}
	l.Op = opReach
	return fillExit(l)
}

func compileBound(l *Level) error {
	switch l.Op {
	case "":
		l.Op = opAbove
	case opAbove, opBelow:
	case opOutside:
		if l.Low >= l.High {
			return fmt.Errorf("low: %v is not below high %v: swap or correct them", l.Low, l.High)
		}
		if l.Exit < 0 || l.Exit > (l.High-l.Low)/2 {
			return fmt.Errorf("exit: %v: want 0 to half of high - low, by how much the value must be back inside", l.Exit)
		}
		return nil
	default:
		return fmt.Errorf("op: %q is unknown: use >, < or outside", l.Op)
	}
	return fillExit(l)
}

func fillExit(l *Level) error {
	switch {
	case l.Exit == 0:
		l.Exit = l.Enter
	case l.Op == opBelow && l.Exit < l.Enter:
		return fmt.Errorf("exit: %v is below enter %v: it must lie on the quiet side, above", l.Exit, l.Enter)
	case l.Op != opBelow && l.Exit > l.Enter:
		return fmt.Errorf("exit: %v is above enter %v: it must lie on the quiet side, below", l.Exit, l.Enter)
	}
	return nil
}

// beyond says whether l is entered after the milder level m; levels of different operations are not
// compared.
func beyond(l, m *Level) bool {
	switch {
	case l.Op != m.Op:
		return true
	case l.Op == opBelow:
		return l.Enter < m.Enter
	case l.Op == opOutside:
		return l.Low <= m.Low && l.High >= m.High && (l.Low < m.Low || l.High > m.High)
	default:
		return l.Enter > m.Enter
	}
}
