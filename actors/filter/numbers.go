package filter

import (
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
	"cel.dev/cel-go/interpreter"
)

// mixNumbers lets numbers of different types calculate with each other, as doubles. CEL has that
// for comparisons only, and a filter that silently never matches because 2 is not 2.0 helps nobody.
func mixNumbers(node interpreter.InterpretableV2) (interpreter.InterpretableV2, error) {
	call, ok := node.(interpreter.InterpretableCall)
	if !ok || len(call.Args()) != 2 {
		return node, nil
	}
	var op func(a, b ref.Val) ref.Val
	switch call.Function() {
	case operators.Add:
		op = func(a, b ref.Val) ref.Val {
			if v, ok := a.(traits.Adder); ok {
				return v.Add(b)
			}
			return types.MaybeNoSuchOverloadErr(a)
		}
	case operators.Subtract:
		op = func(a, b ref.Val) ref.Val {
			if v, ok := a.(traits.Subtractor); ok {
				return v.Subtract(b)
			}
			return types.MaybeNoSuchOverloadErr(a)
		}
	case operators.Multiply:
		op = func(a, b ref.Val) ref.Val {
			if v, ok := a.(traits.Multiplier); ok {
				return v.Multiply(b)
			}
			return types.MaybeNoSuchOverloadErr(a)
		}
	case operators.Divide:
		op = func(a, b ref.Val) ref.Val {
			if v, ok := a.(traits.Divider); ok {
				return v.Divide(b)
			}
			return types.MaybeNoSuchOverloadErr(a)
		}
	default:
		return node, nil
	}
	return &arithmetic{InterpretableCall: call, a: call.Args()[0], b: call.Args()[1], op: op}, nil
}

// arithmetic is a binary operation that converts numbers of unequal types first.
type arithmetic struct {
	interpreter.InterpretableCall
	a, b interpreter.InterpretableV2
	op   func(a, b ref.Val) ref.Val
}

// Exec implements interpreter.InterpretableV2.
func (m *arithmetic) Exec(frame *interpreter.ExecutionFrame) ref.Val {
	a := m.a.Exec(frame)
	if types.IsUnknownOrError(a) {
		return a
	}
	b := m.b.Exec(frame)
	if types.IsUnknownOrError(b) {
		return b
	}
	if number(a) && number(b) && a.Type() != b.Type() {
		a, b = a.ConvertToType(types.DoubleType), b.ConvertToType(types.DoubleType)
	}
	return types.LabelErrNode(m.ID(), m.op(a, b))
}

func number(v ref.Val) bool {
	switch v.(type) {
	case types.Int, types.Uint, types.Double:
		return true
	default:
		return false
	}
}
