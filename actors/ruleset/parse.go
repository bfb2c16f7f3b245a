package ruleset

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/doppel-iot/doppel/actors/alert"
	"github.com/doppel-iot/doppel/actors/filter"
	"github.com/doppel-iot/doppel/actors/twin"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

const (
	maxTags  = 32
	maxMatch = 256 // bytes of a device pattern, a tag's key or its value
)

var severities = map[string]alert.Severity{
	alert.Info.String(): alert.Info, alert.Warning.String(): alert.Warning, alert.Critical.String(): alert.Critical,
}

// Rule makes a rule that runs of one as people write it. What is wrong with it is an *Invalid; a rule that
// it returns compiles.
func (c *Compiler) Rule(p *doppelv1.Rule) (alert.Rule, error) {
	r, err := parse(p)
	if err != nil {
		return alert.Rule{}, err
	}
	if r.Expression != "" {
		f, err := compileFilter(c.twins, "expression", r.Expression)
		if err != nil {
			return alert.Rule{}, err
		}
		r.Predicate = overTwin{f}
	}
	if r.Kind == alert.Expression && strings.TrimSpace(r.Expression) == "" {
		return alert.Rule{}, invalid("expression", `it is empty: an expression rule needs one, such as metrics["temperature"].value > 80`)
	}
	if _, err := alert.NewSet([]alert.Rule{r}); err != nil {
		return alert.Rule{}, fromCompile(r.ID, err)
	}
	return r, nil
}

// compileFilter compiles the expression in a field.
func compileFilter(env func() (*filter.Env, error), field, text string) (filter.Filter, error) {
	e, err := env()
	if err != nil {
		return filter.Filter{}, fmt.Errorf("rules: %w", err)
	}
	f, err := e.Compile(text)
	if bad := (*filter.Error)(nil); errors.As(err, &bad) {
		return f, invalid(field, "%s", bad.Text)
	}
	if err != nil {
		return f, invalid(field, "%v", err)
	}
	return f, nil
}

// parse converts the fields one by one.
func parse(p *doppelv1.Rule) (r alert.Rule, err error) {
	r = alert.Rule{
		ID: p.GetId(), Version: p.GetVersion(), Kind: alert.Kind(p.GetKind()), Metric: p.GetMetric(),
		Device: p.GetMatch().GetDevice(), Tags: p.GetMatch().GetTags(),
		ForSamples: p.GetForSamples(), WindowSamples: p.GetWindowSamples(), MinSamples: p.GetMinSamples(),
		Expression: p.GetExpression(), Mode: p.GetMode(), FlapCount: p.GetFlapCount(),
	}
	for _, d := range []struct {
		field string
		from  *durationpb.Duration
		to    *time.Duration
	}{
		{"for_duration", p.GetForDuration(), &r.ForDuration},
		{"window", p.GetWindow(), &r.Window},
		{"min_dwell", p.GetMinDwell(), &r.MinDwell},
		{"escalate_after", p.GetEscalateAfter(), &r.EscalateAfter},
		{"deescalate_after", p.GetDeescalateAfter(), &r.DeescalateAfter},
		{"flap_window", p.GetFlapWindow(), &r.FlapWindow},
	} {
		if *d.to, err = duration(d.field, d.from); err != nil {
			return r, err
		}
	}
	if err := checkMatch(p.GetMatch()); err != nil {
		return r, err
	}
	for _, name := range slices.Sorted(maps.Keys(p.GetLevels())) {
		severity, ok := severities[strings.ToLower(name)]
		if !ok {
			return r, invalid("levels["+name+"]", "%q is no severity: use info, warning or critical", name)
		}
		l := p.GetLevels()[name]
		for _, v := range []struct {
			field string
			value float64
		}{{"enter", l.GetEnter()}, {"exit", l.GetExit()}, {"low", l.GetLow()}, {"high", l.GetHigh()}} {
			if math.IsNaN(v.value) || math.IsInf(v.value, 0) {
				return r, invalid("levels["+name+"]."+v.field, "%v: want a finite number", v.value)
			}
		}
		r.Levels = append(r.Levels, alert.Level{
			Severity: severity, Enter: l.GetEnter(), Exit: l.GetExit(), Op: l.GetOp(), Low: l.GetLow(), High: l.GetHigh(),
		})
	}
	slices.SortStableFunc(r.Levels, func(a, b alert.Level) int { return cmp.Compare(a.Severity, b.Severity) })
	return r, nil
}

func duration(field string, d *durationpb.Duration) (time.Duration, error) {
	if d == nil {
		return 0, nil
	}
	if err := d.CheckValid(); err != nil {
		return 0, invalid(field, "it is no duration: write one such as \"300s\"")
	}
	return d.AsDuration(), nil // one too large for it is the largest there is, which the rule refuses
}

func checkMatch(m *doppelv1.Match) error {
	if len(m.GetDevice()) > maxMatch {
		return invalid("match.device", "longer than %d bytes: use * for what may differ", maxMatch)
	}
	if len(m.GetTags()) > maxTags {
		return invalid("match.tags", "%d tags: at most %d", len(m.GetTags()), maxTags)
	}
	for _, key := range slices.Sorted(maps.Keys(m.GetTags())) {
		if key == "" || len(key) > maxMatch || len(m.GetTags()[key]) > maxMatch {
			return invalid("match.tags", "a key is empty, or it or its value is longer than %d bytes", maxMatch)
		}
	}
	return nil
}

// overTwin is an expression over the twin that alert.Book.Evaluate is given. It sees nothing that is not
// the twin's own, so that it gives the same wherever the log is folded.
type overTwin struct{ filter filter.Filter }

// Holds implements alert.Predicate.
func (p overTwin) Holds(view any) (bool, error) {
	t, ok := view.(*twin.Twin)
	if !ok {
		return false, errView
	}
	return p.filter.HoldsTwin(t, filter.Facts{})
}
