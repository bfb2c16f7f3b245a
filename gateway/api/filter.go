package api

import (
	"errors"
	"fmt"
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/interpreter"
	"google.golang.org/protobuf/proto"
)

const (
	maxFilter = 4096 // bytes
	// filterCost bounds the work for one message, in CEL's cost units (about one a step).
	filterCost = 10_000
)

var errFilterCost = errors.New("filter costs too much to evaluate")

// filterEnv compiles filters over the fields of one message type. Safe for concurrent use.
type filterEnv struct {
	env    *cel.Env
	fields *fieldSet
}

// filter is a compiled filter; the zero filter matches everything. Safe for concurrent use.
type filter struct {
	program cel.Program
	fields  *fieldSet
}

// newFilterEnv declares the fields of msg as variables, by their proto names and by their JSON
// names. Numbers of different types compare and calculate with each other.
func newFilterEnv(msg proto.Message) (*filterEnv, error) {
	registry, err := types.NewRegistry(types.ProtoTypeDefs(msg))
	if err != nil {
		return nil, fmt.Errorf("filter types: %w", err)
	}
	fields := newFieldSet(msg.ProtoReflect().Descriptor(), registry)
	opts := []cel.EnvOption{
		cel.CustomTypeAdapter(registry),
		cel.CustomTypeProvider(&looseTypes{registry}),
		cel.CrossTypeNumericComparisons(true),
		cel.ParserExpressionSizeLimit(maxFilter),
		cel.ParserRecursionLimit(64),
	}
	opts = append(opts, fields.variables()...)
	env, err := cel.NewEnv(opts...)
	if err != nil {
		return nil, fmt.Errorf("filter environment: %w", err)
	}
	return &filterEnv{env: env, fields: fields}, nil
}

// compile checks a filter; an empty one matches everything.
func (e *filterEnv) compile(expr string) (filter, error) {
	if strings.TrimSpace(expr) == "" {
		return filter{}, nil
	}
	if len(expr) > maxFilter {
		return filter{}, invalid("filter", "longer than %d bytes", maxFilter)
	}
	ast, issues := e.env.Compile(expr)
	if err := issues.Err(); err != nil {
		return filter{}, invalid("filter", "%s", describe(issues))
	}
	if out := ast.OutputType(); !out.IsExactType(cel.BoolType) && !out.IsExactType(cel.DynType) {
		return filter{}, invalid("filter", "1:1: gives a %s, want a bool", out)
	}
	program, err := e.env.Program(ast, cel.EvalOptions(cel.OptOptimize), cel.CostLimit(filterCost),
		cel.CustomDecoratorV2(mixNumbers))
	if err != nil {
		return filter{}, invalid("filter", "1:1: %v", err)
	}
	return filter{program: program, fields: e.fields}, nil
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

// matches says whether msg passes. A missing key, or a value of another type than the filter
// expects, is no match; only too much work is an error.
func (f filter) matches(msg proto.Message) (bool, error) {
	if f.program == nil {
		return true, nil
	}
	out, _, err := f.program.Eval(&activation{fields: f.fields, msg: msg})
	if err != nil {
		var cancelled interpreter.EvalCancelledError
		if errors.As(err, &cancelled) && cancelled.Cause == interpreter.CostLimitExceeded {
			return false, errFilterCost
		}
		return false, nil // a missing key is no match
	}
	return out == types.True, nil
}
