package alert

import (
	"fmt"
	"math"
	"strconv"
	"time"
)

// reason is one sentence for people on why an alert stands as it does. level is that of the breach,
// -1 when it ended.
func reason(r *compiled, a *Alert, e *evidence, level int) string {
	if level < 0 {
		return resolvedReason(r, a)
	}
	return breachReason(r, a, e, &r.Levels[level])
}

func breachReason(r *compiled, a *Alert, e *evidence, l *Level) string {
	switch r.Kind {
	case ZScore:
		side := "above"
		if a.Score < 0 {
			side = "below"
		}
		return fmt.Sprintf("%s %s is %.1f sigma %s its mean of %s (%d samples)",
			a.Metric, number(a.Value), math.Abs(a.Score), side, number(a.BaselineMean), a.BaselineCount)
	case Threshold:
		if !r.entered(l, e.now) {
			return fmt.Sprintf("%s %s eases off but is not back yet", a.Metric, number(a.Value))
		}
		return fmt.Sprintf("%s %s is %s", a.Metric, number(a.Value), l.bound())
	case Rate:
		if !r.entered(l, e.now) {
			return fmt.Sprintf("%s changes by %s a second, which eases off but is not over yet", a.Metric, number(e.now))
		}
		return fmt.Sprintf("%s changes by %s a second, %s", a.Metric, number(e.now), l.bound())
	case Offline:
		return "the device is offline"
	case Gap:
		return number(a.Value) + " samples are missing"
	case Diverged:
		return "the device does not report what is desired of it"
	default:
		return "true: " + r.Expression
	}
}

func resolvedReason(r *compiled, a *Alert) string {
	if a.FireTime == 0 {
		return "it ended before the alert fired"
	}
	switch r.Kind {
	case ZScore:
		return fmt.Sprintf("%s %s is back at %.1f sigma from its mean of %s (%d samples)",
			a.Metric, number(a.Value), math.Abs(a.Score), number(a.BaselineMean), a.BaselineCount)
	case Threshold:
		return fmt.Sprintf("%s is back at %s", a.Metric, number(a.Value))
	case Rate:
		return a.Metric + " changes slowly again"
	case Stale:
		return "data arrives again"
	case Offline:
		return "the device is online again"
	case Diverged:
		return "the device reports what is desired of it"
	case Numbering:
		return fmt.Sprintf("samples are accepted and no boot went back for %v", r.Window)
	case Gap:
		return fmt.Sprintf("no gap for %v", r.Window)
	case DeadLetters:
		return fmt.Sprintf("no message was refused for %v", r.Window)
	default:
		return "no longer true: " + r.Expression
	}
}

func (l *Level) bound() string {
	switch l.Op {
	case opBelow:
		return "below " + number(l.Enter)
	case opOutside:
		return "outside " + number(l.Low) + " to " + number(l.High)
	default:
		return "above " + number(l.Enter)
	}
}

// number writes five digits, more only for large whole ones.
func number(v float64) string {
	if size := math.Abs(v); size >= 1e5 && size < 1e15 {
		return strconv.FormatFloat(v, 'f', 0, 64)
	}
	return strconv.FormatFloat(v, 'g', 5, 64)
}

// duration writes three digits at most below a minute.
func duration(d time.Duration) string {
	switch {
	case d >= time.Minute:
		return d.Round(time.Second).String()
	case d >= time.Second:
		return d.Round(100 * time.Millisecond).String()
	default:
		return d.Round(time.Millisecond).String()
	}
}
