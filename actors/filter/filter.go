// Package filter compiles filters: CEL expressions over the fields of one message type, such as Twin.
// Lists, watches, aggregates, silences and expression rules use it.
//
// It reads no twins and knows no requests: an Error says where a filter is wrong, and whoever asked
// makes an answer of that. A Filter has no clock and no state, so that the same twin gives the same
// answer wherever and whenever it is asked.
//
// Concurrency: an Env and a Filter are safe for concurrent use; the twin that one is asked about
// belongs to the caller's goroutine.
package filter

import (
	"errors"
	"fmt"
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/checker"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/interpreter"
	"google.golang.org/protobuf/proto"
)

const (
	maxText = 4096 // bytes
	// maxCost bounds the work for one message, in CEL's cost units (about one a step).
	maxCost = 10_000
)

// ErrCost says that a filter takes too much work for one message.
var ErrCost = errors.New("filter costs too much to evaluate")

// Error is a filter that cannot be compiled. Its text begins with LINE:COLUMN, counted from 1, where
// there is a place to name.
type Error struct{ Text string }

func (e *Error) Error() string { return e.Text }

// Env compiles filters over the fields of one message type. Safe for concurrent use.
type Env struct {
	env    *cel.Env
	fields *fieldSet
}

// Filter is a compiled filter; the zero Filter matches everything. Safe for concurrent use.
type Filter struct {
	program cel.Program
	fields  *fieldSet
	checked *cel.Ast
	text    string
}

// String is the text it was compiled from.
func (f Filter) String() string { return f.text }

// NewEnv declares the fields of msg as variables, by their proto names and by their JSON
// names. Numbers of different types compare and calculate with each other.
func NewEnv(msg proto.Message) (*Env, error) {
	registry, err := types.NewRegistry(types.ProtoTypeDefs(msg))
	if err != nil {
		return nil, fmt.Errorf("filter types: %w", err)
	}
	fields := newFieldSet(msg.ProtoReflect().Descriptor(), registry)
	opts := []cel.EnvOption{
		cel.CustomTypeAdapter(registry),
		cel.CustomTypeProvider(&looseTypes{registry}),
		cel.CrossTypeNumericComparisons(true),
		cel.ParserExpressionSizeLimit(maxText),
		cel.ParserRecursionLimit(64),
	}
	opts = append(opts, fields.variables()...)
	env, err := cel.NewEnv(opts...)
	if err != nil {
		return nil, fmt.Errorf("filter environment: %w", err)
	}
	return &Env{env: env, fields: fields}, nil
}

// Compile checks a filter; an empty one matches everything. Whatever is wrong with it is an *Error.
func (e *Env) Compile(expr string) (Filter, error) {
	if strings.TrimSpace(expr) == "" {
		return Filter{}, nil
	}
	if len(expr) > maxText {
		return Filter{}, &Error{Text: fmt.Sprintf("longer than %d bytes", maxText)}
	}
	ast, issues := e.env.Compile(expr)
	if err := issues.Err(); err != nil {
		return Filter{}, &Error{Text: describe(issues)}
	}
	if out := ast.OutputType(); !out.IsExactType(cel.BoolType) && !out.IsExactType(cel.DynType) {
		return Filter{}, &Error{Text: fmt.Sprintf("1:1: gives a %s, want a bool", out)}
	}
	opts := []cel.ProgramOption{cel.EvalOptions(cel.OptOptimize), cel.CustomDecoratorV2(mixNumbers)}
	if estimate, err := e.env.EstimateCost(ast, unsized{}); err != nil || estimate.Max > maxCost {
		opts = append(opts, cel.CostLimit(maxCost)) // counting makes each evaluation dearer by half
	}
	program, err := e.env.Program(ast, opts...)
	if err != nil {
		return Filter{}, &Error{Text: "1:1: " + err.Error()}
	}
	return Filter{program: program, fields: e.fields, checked: ast, text: expr}, nil
}

// Mentions says whether the filter names a field of the message, by its proto name or its JSON name as given.
func (f Filter) Mentions(name string) bool {
	if f.checked == nil {
		return false
	}
	for _, r := range f.checked.NativeRep().ReferenceMap() {
		if r.Name == name {
			return true
		}
	}
	return false
}

// describe gives each error as LINE:COLUMN: TEXT, columns counted from 1.
func describe(issues *cel.Issues) string {
	var b strings.Builder
	for i, e := range issues.Errors() {
		if i == 3 {
			b.WriteString("; …")
			break
		}
		if i > 0 {
			b.WriteString("; ")
		}
		line, column := e.Location.Line(), e.Location.Column()+1
		if line < 1 { // the filter as a whole, as when it is nested too deep
			line, column = 1, 1
		}
		fmt.Fprintf(&b, "%d:%d: %s", line, column, strings.TrimSuffix(e.Message, " (in container '')"))
	}
	return b.String()
}

// Matches says whether msg passes. A missing key, or a value of another type than the filter
// expects, is no match; only too much work is an error.
func (f Filter) Matches(msg proto.Message) (bool, error) {
	if f.program == nil {
		return true, nil
	}
	return f.eval(&activation{fields: f.fields, msg: msg})
}

func (f Filter) eval(vars interpreter.Activation) (bool, error) {
	out, _, err := f.program.Eval(vars)
	if err != nil {
		var cancelled interpreter.EvalCancelledError
		if errors.As(err, &cancelled) && cancelled.Cause == interpreter.CostLimitExceeded {
			return false, ErrCost
		}
		return false, nil // a missing key is no match
	}
	return out == types.True, nil
}

// unsized says of nothing how large it is: what depends on sizes is counted while it runs.
type unsized struct{}

var _ checker.CostEstimator = unsized{}

// EstimateSize implements checker.CostEstimator.
func (unsized) EstimateSize(checker.AstNode) *checker.SizeEstimate { return nil }

// EstimateCallCost implements checker.CostEstimator.
func (unsized) EstimateCallCost(string, string, *checker.AstNode, []checker.AstNode) *checker.CallEstimate {
	return nil
}
