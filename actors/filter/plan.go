package filter

import (
	"slices"

	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"

	"github.com/doppel-iot/doppel/actors/twin"
)

// View is a twin, or what can be said of one without decoding all of it: *twin.Twin or *twin.Peek.
type View interface {
	ID() string
	Online() bool
	Quarantined() bool
	Version() uint64
	ReportedVersion() uint64
	Digest() uint64
	LastSeen() int64
	CreateTime() int64
	Counters() twin.Counters
	OpenCount() int
	Value(metric string) (float64, bool)
	// Tag is the value of a tag; it is good until the View is one of another twin.
	Tag(key string) ([]byte, bool)
}

var (
	_ View = (*twin.Twin)(nil)
	_ View = (*twin.Peek)(nil)
)

// TermKind is a question that an index of twins answers.
type TermKind uint8

// Terms.
const (
	Online   TermKind = iota + 1 // Want: it is, or is not
	Alerting                     // it has open alerts, or has none
	Tagged                       // it has the tag Key, with Value
)

// Term is what every twin that passes a filter has, besides more.
type Term struct {
	Kind       TermKind
	Key, Value string
	Want       bool
}

// Plan is a filter made ready for many twins. It gives the same answers: a part that is a comparison
// with a constant is not interpreted, and one that an index answers need not be asked at all. It is
// safe for concurrent use.
type Plan struct {
	filter Filter
	terms  []Term
	rest   verdict // nil: the terms say all
}

// verdict asks a part of a filter. A twin for which the part is false or has no value does not pass;
// the parts are joined by and and or alone, so that the difference does not show.
type verdict func(q *Question) (bool, error)

// Question is a twin that is asked about. One may serve for twin after twin.
type Question struct {
	View  View
	Facts Facts
	// Whole gives all of the twin, nil if it cannot be had. It is called at most once for each answer,
	// and only where the View does not suffice.
	Whole func() *twin.Twin
}

// Plan makes the plan of a filter over Twin, for an index that answers terms of these kinds.
func (f Filter) Plan(indexed ...TermKind) *Plan {
	p := &Plan{filter: f}
	if f.program == nil {
		return p
	}
	var parts []verdict
	interpret := false
	for _, e := range conjuncts(nil, f.checked.NativeRep().Expr()) {
		if t, ok := termOf(e); ok && slices.Contains(indexed, t.Kind) {
			p.terms = append(p.terms, t)
		} else if v, ok := verdictOf(e); ok {
			parts = append(parts, v)
		} else {
			interpret = true
		}
	}
	if interpret {
		parts = append(parts, f.interpreted) // all of it, for those that the cheap parts let through
	}
	if len(parts) > 0 {
		p.rest = all(parts)
	}
	return p
}

// Terms are what an index can answer. Twins that have them all still are to be asked Holds, unless
// Exact.
func (p *Plan) Terms() []Term { return p.terms }

// Exact says that the terms are all there is to the filter.
func (p *Plan) Exact() bool { return p.rest == nil }

// Holds says whether a twin that has all terms passes. One that cannot be had does not.
func (p *Plan) Holds(q *Question) (bool, error) {
	if p.rest == nil {
		return true, nil
	}
	return p.rest(q)
}

// interpreted asks CEL.
func (f Filter) interpreted(q *Question) (bool, error) {
	t := q.Whole()
	if t == nil {
		return false, nil
	}
	return f.HoldsTwin(t, q.Facts)
}

func all(parts []verdict) verdict {
	if len(parts) == 1 {
		return parts[0]
	}
	return func(q *Question) (bool, error) {
		for _, part := range parts {
			if ok, err := part(q); !ok || err != nil {
				return false, err
			}
		}
		return true, nil
	}
}

func anyOf(parts []verdict) verdict {
	return func(q *Question) (bool, error) {
		for _, part := range parts {
			if ok, err := part(q); ok || err != nil {
				return ok, err
			}
		}
		return false, nil
	}
}

// conjuncts takes a && b && c apart.
func conjuncts(dst []ast.Expr, e ast.Expr) []ast.Expr {
	if e.Kind() != ast.CallKind || e.AsCall().FunctionName() != operators.LogicalAnd {
		return append(dst, e)
	}
	for _, arg := range e.AsCall().Args() {
		dst = conjuncts(dst, arg)
	}
	return dst
}
