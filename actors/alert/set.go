package alert

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"
)

// Set is a compiled set of rules, sorted by what feeds them. It never changes, so that any number
// of twins may share it. The zero Set has no rules.
type Set struct {
	zscore     []*compiled
	least      float64     // lowest Enter of the zscore rules: below it a score begins nothing
	value      []*compiled // threshold and rate
	stale      []*compiled
	offline    []*compiled
	gap        []*compiled
	numbering  []*compiled
	letters    []*compiled
	diverged   []*compiled
	expression []*compiled
	byID       map[string]*compiled

	silences []Silence // by id
	timers   bool      // time alone may change what an open alert is, whatever drives it
}

// NewSet compiles rules, and the silences in force beside them. Rules that are off are checked and left
// out. An error names the rule, the field and the remedy.
func NewSet(rules []Rule, silences ...Silence) (*Set, error) {
	s := &Set{least: math.Inf(1), byID: make(map[string]*compiled, len(rules))}
	sorted := slices.Clone(rules)
	slices.SortStableFunc(sorted, func(a, b Rule) int { return cmp.Compare(a.ID, b.ID) })
	for i := range sorted {
		r, err := compile(sorted[i])
		if err != nil {
			return nil, fmt.Errorf("rule %q: %w", sorted[i].ID, err)
		}
		if i > 0 && r.ID == sorted[i-1].ID {
			return nil, fmt.Errorf("rule %q: id: there are two of it, rename one", r.ID)
		}
		if r.Mode == ModeOff {
			continue
		}
		s.byID[r.ID] = r
		s.add(r)
	}
	if err := s.silence(silences); err != nil {
		return nil, err
	}
	return s, nil
}

// Evaluates says that there are expression rules.
func (s *Set) Evaluates() bool { return len(s.expression) > 0 }

func (s *Set) add(r *compiled) {
	switch r.Kind {
	case ZScore:
		s.zscore = append(s.zscore, r)
		s.least = min(s.least, r.Levels[0].Enter)
	case Threshold, Rate:
		s.value = append(s.value, r)
	case Stale:
		s.stale = append(s.stale, r)
	case Offline:
		s.offline = append(s.offline, r)
	case Gap:
		s.gap = append(s.gap, r)
	case Numbering:
		s.numbering = append(s.numbering, r)
	case DeadLetters:
		s.letters = append(s.letters, r)
	case Diverged:
		s.diverged = append(s.diverged, r)
	case Expression:
		s.expression = append(s.expression, r)
	}
	s.timers = s.timers || r.timed()
}

// compiled is a rule whose levels are sorted from mild to severe and whose defaults are filled in.
type compiled struct {
	Rule
	everyone  bool    // no device and no tags to compare
	intervals float64 // of stale: how many learned ones are too long
}

func (r *compiled) matches(device string, tags map[string]string) bool {
	if r.everyone {
		return true
	}
	for key, want := range r.Tags {
		if got, ok := tags[key]; !ok || got != want {
			return false
		}
	}
	return r.Device == "" || glob(r.Device, device)
}

// timed says that time alone may change an open alert of the rule, whatever drives it.
func (r *compiled) timed() bool {
	return r.Kind == Expression || r.EscalateAfter > 0 || r.FlapCount > 0
}

func (r *compiled) shadow() bool { return r.Mode == ModeShadow }

func (r *compiled) watches(metric string) bool { return r.Metric == "" || r.Metric == metric }

// immediate rules fire without being pending first.
func (r *compiled) immediate() bool {
	return r.Kind == Stale || (r.ForSamples <= 1 && r.ForDuration <= 0)
}

// begins is the highest level that v enters, -1 for none.
func (r *compiled) begins(v float64) int {
	for i := len(r.Levels) - 1; i >= 0; i-- {
		if r.entered(&r.Levels[i], v) {
			return i
		}
	}
	return -1
}

// stays is the highest level, not above that of severity s, that v has not left; -1 for none.
func (r *compiled) stays(v float64, s Severity) int {
	for i := len(r.Levels) - 1; i >= 0; i-- {
		// The mildest level stands in for one that a new version of the rule no longer has.
		if (r.Levels[i].Severity <= s || i == 0) && !r.left(&r.Levels[i], v) {
			return i
		}
	}
	return -1
}

func (r *compiled) entered(l *Level, v float64) bool {
	switch l.Op {
	case opReach:
		return v >= l.Enter
	case opBelow:
		return v < l.Enter
	case opOutside:
		return v < l.Low || v > l.High
	default:
		return v > l.Enter
	}
}

func (r *compiled) left(l *Level, v float64) bool {
	switch l.Op {
	case opReach:
		return v < l.Exit
	case opBelow:
		return v >= l.Exit
	case opOutside:
		return v >= l.Low+l.Exit && v <= l.High-l.Exit
	default:
		return v <= l.Exit
	}
}

// patience is how long the silence may last, given the learned interval; ok is false while a rule
// that goes by intervals knows none.
func (r *compiled) patience(interval int64, known bool) (silence time.Duration, ok bool) {
	if r.ForDuration > 0 {
		return r.ForDuration, true
	}
	const century = 100 * 365 * 24 * time.Hour // keeps the sum of times within an int64
	learned := float64(interval) * r.intervals
	if learned > float64(century) {
		return century, known
	}
	return max(time.Duration(learned), r.Window), known
}

// glob matches * (any bytes) and ? (one byte).
func glob(pattern, s string) bool {
	star, mark := -1, 0
	p, i := 0, 0
	for i < len(s) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, mark = p, i
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == s[i]):
			p, i = p+1, i+1
		case star >= 0:
			mark++
			p, i = star+1, mark
		default:
			return false
		}
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}
