package ruleset

import (
	"errors"
	"strings"
	"time"

	"github.com/doppel-iot/doppel/actors/alert"
	"github.com/doppel-iot/doppel/actors/codec"
	"github.com/doppel-iot/doppel/actors/filter"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// Silence makes a silence that works of one as people write it. What is wrong with it is an *Invalid.
func (c *Compiler) Silence(p *doppelv1.Silence) (alert.Silence, error) {
	if p.GetId() == "" {
		return alert.Silence{}, invalid("id", "it is empty")
	}
	match, err := c.Match(p.GetFilter())
	if err != nil {
		return alert.Silence{}, err
	}
	if err := p.GetEndTime().CheckValid(); err != nil {
		return alert.Silence{}, invalid("end_time", "it is no time: a silence ends at one")
	}
	return alert.Silence{ID: p.GetId(), Match: match, End: p.GetEndTime().AsTime().UnixNano()}, nil
}

// Match compiles the filter of a silence, which must not be empty: one that holds every alert is written true.
func (c *Compiler) Match(text string) (alert.Predicate, error) {
	if strings.TrimSpace(text) == "" {
		return nil, invalid("filter", `is required: say which alerts, such as device == "pump-1", or true for all of them`)
	}
	f, err := compileFilter(c.alerts, "filter", text)
	if err != nil {
		return nil, err
	}
	return overAlert{f}, nil
}

// overAlert is a filter over the alert that a silence is to hold or not.
type overAlert struct{ filter filter.Filter }

// Holds implements alert.Predicate.
func (p overAlert) Holds(view any) (bool, error) {
	v, ok := view.(*alert.View)
	if !ok {
		return false, errView
	}
	m := codec.Alert(v.Device, v.Alert)
	m.Tags = v.Tags
	return p.filter.Matches(m)
}

var errView = errors.New("not what the expression is over")

// Ended says whether a silence has ended by a time.
func Ended(p *doppelv1.Silence, now time.Time) bool { return !p.GetEndTime().AsTime().After(now) }

// SilenceKey is the key of a silence in doppel.rules; that of a rule is its id, which has no slash.
func SilenceKey(id string) string { return "silence/" + id }
