package filter

import (
	"cmp"
	"math"
	"strings"
	"time"

	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/overloads"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
)

// termOf is the term that an expression is.
func termOf(e ast.Expr) (Term, bool) {
	if p, ok := pathOf(e); ok && p == (path{field: "online"}) {
		return Term{Kind: Online, Want: true}, true
	}
	if arg, ok := negated(e); ok {
		p, ok := pathOf(arg)
		return Term{Kind: Online}, ok && p == (path{field: "online"})
	}
	left, op, right, ok := comparison(e)
	if !ok {
		return Term{}, false
	}
	if openAlerts(left) {
		if n, ok := number64(right); ok {
			return alerting(op, n)
		}
		return Term{}, false
	}
	p, ok := pathOf(left)
	if !ok || op != operators.Equals {
		return Term{}, false
	}
	switch value := right.(type) {
	case types.Bool:
		return Term{Kind: Online, Want: bool(value)}, p == path{field: "online"}
	case types.String:
		return Term{Kind: Tagged, Key: p.key, Value: string(value), Want: true}, p.field == "tags" && p.key != "" && p.member == ""
	default:
		return Term{}, false
	}
}

// alerting is the term of size(open_alerts) compared with a number, if that asks whether there are any.
func alerting(op string, n float64) (Term, bool) {
	switch {
	case op == operators.Equals && n == 0, op == operators.Less && n == 1, op == operators.LessEquals && n == 0:
		return Term{Kind: Alerting}, true
	case op == operators.NotEquals && n == 0, op == operators.Greater && n == 0, op == operators.GreaterEquals && n == 1:
		return Term{Kind: Alerting, Want: true}, true
	default:
		return Term{}, false
	}
}

// verdictOf is an expression that a View can answer.
func verdictOf(e ast.Expr) (verdict, bool) {
	if t, ok := termOf(e); ok {
		return t.verdict(), true
	}
	if key, ok := taggedAtAll(e); ok {
		return func(q *Question) (bool, error) {
			_, ok := q.View.Tag(key)
			return ok, nil
		}, true
	}
	if p, ok := pathOf(e); ok && p == (path{field: "quarantined"}) {
		return func(q *Question) (bool, error) { return q.quarantined(), nil }, true
	}
	if arg, ok := negated(e); ok {
		p, ok := pathOf(arg)
		return func(q *Question) (bool, error) { return !q.quarantined(), nil }, ok && p == path{field: "quarantined"}
	}
	if e.Kind() != ast.CallKind {
		return nil, false
	}
	switch call := e.AsCall(); call.FunctionName() {
	case operators.LogicalAnd, operators.LogicalOr:
		parts := make([]verdict, len(call.Args()))
		for i, arg := range call.Args() {
			var ok bool
			if parts[i], ok = verdictOf(arg); !ok {
				return nil, false
			}
		}
		if call.FunctionName() == operators.LogicalOr {
			return anyOf(parts), true
		}
		return all(parts), true
	case overloads.StartsWith, overloads.EndsWith, overloads.Contains:
		return textual(call)
	default:
		return compared(e)
	}
}

func (t Term) verdict() verdict {
	switch t.Kind {
	case Online:
		return func(q *Question) (bool, error) { return q.View.Online() == t.Want, nil }
	case Alerting:
		return func(q *Question) (bool, error) { return (q.View.OpenCount() > 0) == t.Want, nil }
	case Tagged:
	}
	return func(q *Question) (bool, error) {
		value, ok := q.View.Tag(t.Key)
		return ok && string(value) == t.Value, nil
	}
}

// taggedAtAll is the key of has(tags.key) and of "key" in tags.
func taggedAtAll(e ast.Expr) (key string, ok bool) {
	switch e.Kind() {
	case ast.SelectKind:
		s := e.AsSelect()
		p, ok := pathOf(s.Operand())
		return s.FieldName(), ok && s.IsTestOnly() && p == path{field: "tags"}
	case ast.CallKind:
		call := e.AsCall()
		if call.FunctionName() != operators.In || len(call.Args()) != 2 || call.Args()[0].Kind() != ast.LiteralKind {
			return "", false
		}
		text, isText := call.Args()[0].AsLiteral().(types.String)
		p, ok := pathOf(call.Args()[1])
		return string(text), ok && isText && p == path{field: "tags"}
	default:
		return "", false
	}
}

func (q *Question) quarantined() bool { return q.View.Quarantined() || q.Facts.Quarantined }

// textual is id.startsWith("…") and the like.
func textual(call ast.CallExpr) (verdict, bool) {
	if !call.IsMemberFunction() || len(call.Args()) != 1 || call.Args()[0].Kind() != ast.LiteralKind {
		return nil, false
	}
	p, isPath := pathOf(call.Target())
	text, isText := call.Args()[0].AsLiteral().(types.String)
	if !isPath || !isText || p != (path{field: "id"}) {
		return nil, false
	}
	has := strings.Contains
	switch call.FunctionName() {
	case overloads.StartsWith:
		has = strings.HasPrefix
	case overloads.EndsWith:
		has = strings.HasSuffix
	}
	return func(q *Question) (bool, error) { return has(q.View.ID(), string(text)), nil }, true
}

// compared is a comparison of a field with a constant.
func compared(e ast.Expr) (verdict, bool) {
	left, op, right, ok := comparison(e)
	if !ok {
		return nil, false
	}
	if openAlerts(left) {
		n, ok := number64(right)
		return func(q *Question) (bool, error) { return compares(op, cmp.Compare(float64(q.View.OpenCount()), n)), nil }, ok
	}
	p, ok := pathOf(left)
	if !ok {
		return nil, false
	}
	switch value := right.(type) {
	case types.Int, types.Uint, types.Double:
		return numeric(p, op, value)
	case types.String:
		if p.field == "tags" && p.key != "" && p.member == "" {
			return func(q *Question) (bool, error) {
				text, ok := q.View.Tag(p.key)
				return ok && compares(op, strings.Compare(string(text), string(value))), nil
			}, true
		}
		if p != (path{field: "id"}) {
			return nil, false
		}
		return func(q *Question) (bool, error) { return compares(op, strings.Compare(q.View.ID(), string(value))), nil }, true
	case types.Timestamp:
		return temporal(p, op, value.Time)
	default:
		return nil, false
	}
}

// numeric compares a number of the twin.
func numeric(p path, op string, value ref.Val) (verdict, bool) {
	n, ok := number64(value)
	if !ok {
		return nil, false
	}
	if p.field == "metrics" && p.key != "" && p.member == "value" {
		return func(q *Question) (bool, error) {
			x, ok := q.View.Value(p.key)
			return ok && compares(op, cmp.Compare(x, n)), nil // a value is finite
		}, true
	}
	get := whole(p)
	if get == nil {
		return nil, false
	}
	return func(q *Question) (bool, error) { return compares(op, compareWhole(get(q.View), n)), nil }, true
}

// whole gives the fields that are whole numbers.
func whole(p path) func(View) uint64 {
	switch p {
	case path{field: "version"}:
		return View.Version
	case path{field: "reported_version"}:
		return View.ReportedVersion
	case path{field: "digest"}:
		return View.Digest
	case path{field: "counters", member: "applied"}:
		return func(v View) uint64 { return v.Counters().Applied }
	case path{field: "counters", member: "late"}:
		return func(v View) uint64 { return v.Counters().Late }
	case path{field: "counters", member: "duplicate"}:
		return func(v View) uint64 { return v.Counters().Duplicate }
	case path{field: "counters", member: "dead_lettered"}:
		return func(v View) uint64 { return v.Counters().DeadLettered }
	case path{field: "counters", member: "held"}:
		return func(v View) uint64 { return v.Counters().Held }
	case path{field: "counters", member: "gaps"}:
		return func(v View) uint64 { return v.Counters().Gaps }
	case path{field: "counters", member: "missing"}:
		return func(v View) uint64 { return v.Counters().Missing }
	default:
		return nil
	}
}

// compareWhole compares exactly; n is at most 2^53 either way.
func compareWhole(v uint64, n float64) int {
	if v > 1<<53 {
		return 1
	}
	return cmp.Compare(float64(v), n)
}

// temporal compares a time; one that has not come compares with nothing.
func temporal(p path, op string, at time.Time) (verdict, bool) {
	get := View.LastSeen
	switch p {
	case path{field: "last_seen"}:
	case path{field: "create_time"}:
		get = View.CreateTime
	default:
		return nil, false
	}
	if op == operators.Equals || op == operators.NotEquals { // null is a value there
		return nil, false
	}
	return func(q *Question) (bool, error) {
		nanos := get(q.View)
		return nanos != 0 && compares(op, time.Unix(0, nanos).Compare(at)), nil
	}, true
}

func compares(op string, c int) bool {
	switch op {
	case operators.Equals:
		return c == 0
	case operators.NotEquals:
		return c != 0
	case operators.Less:
		return c < 0
	case operators.LessEquals:
		return c <= 0
	case operators.Greater:
		return c > 0
	default:
		return c >= 0
	}
}

// path is a field of a twin, key if it is a map, and a member of what stands there.
type path struct{ field, key, member string }

// pathOf reads what names a field, in the names of the proto file.
func pathOf(e ast.Expr) (path, bool) {
	switch e.Kind() {
	case ast.IdentKind:
		switch name := e.AsIdent(); name {
		case "lastSeen":
			return path{field: "last_seen"}, true
		case "createTime":
			return path{field: "create_time"}, true
		case "reportedVersion":
			return path{field: "reported_version"}, true
		default:
			return path{field: name}, true
		}
	case ast.SelectKind:
		s := e.AsSelect()
		p, ok := pathOf(s.Operand())
		if !ok || s.IsTestOnly() || p.member != "" {
			return path{}, false
		}
		return p.below(s.FieldName())
	case ast.CallKind:
		call := e.AsCall()
		if call.FunctionName() != operators.Index || len(call.Args()) != 2 || call.Args()[1].Kind() != ast.LiteralKind {
			return path{}, false
		}
		p, ok := pathOf(call.Args()[0])
		key, isText := call.Args()[1].AsLiteral().(types.String)
		if !ok || !isText || key == "" || p.key != "" || p.member != "" {
			return path{}, false
		}
		return p.below(string(key))
	default:
		return path{}, false
	}
}

func (p path) below(name string) (path, bool) {
	switch {
	case (p.field == "metrics" || p.field == "tags") && p.key == "":
		p.key = name
	case name == "deadLettered":
		p.member = "dead_lettered"
	default:
		p.member = name
	}
	return p, name != ""
}

// openAlerts says whether e is how many open alerts there are.
func openAlerts(e ast.Expr) bool {
	if e.Kind() != ast.CallKind || e.AsCall().FunctionName() != overloads.Size {
		return false
	}
	call := e.AsCall()
	var of ast.Expr
	switch {
	case call.IsMemberFunction():
		of = call.Target()
	case len(call.Args()) == 1:
		of = call.Args()[0]
	default:
		return false
	}
	return of.Kind() == ast.IdentKind && (of.AsIdent() == "open_alerts" || of.AsIdent() == "openAlerts")
}

func negated(e ast.Expr) (ast.Expr, bool) {
	if e.Kind() != ast.CallKind || e.AsCall().FunctionName() != operators.LogicalNot || len(e.AsCall().Args()) != 1 {
		return nil, false
	}
	return e.AsCall().Args()[0], true
}

// comparison takes a comparison with a constant apart, and turns it round where the constant stands first.
func comparison(e ast.Expr) (left ast.Expr, op string, right ref.Val, ok bool) {
	if e.Kind() != ast.CallKind || len(e.AsCall().Args()) != 2 {
		return nil, "", nil, false
	}
	op = e.AsCall().FunctionName()
	turned, ok := map[string]string{
		operators.Equals: operators.Equals, operators.NotEquals: operators.NotEquals,
		operators.Less: operators.Greater, operators.LessEquals: operators.GreaterEquals,
		operators.Greater: operators.Less, operators.GreaterEquals: operators.LessEquals,
	}[op]
	if !ok {
		return nil, "", nil, false
	}
	args := e.AsCall().Args()
	if value, ok := constant(args[1]); ok {
		return args[0], op, value, true
	}
	if value, ok := constant(args[0]); ok {
		return args[1], turned, value, true
	}
	return nil, "", nil, false
}

// constant is a literal, a negative one, or timestamp("…").
func constant(e ast.Expr) (ref.Val, bool) {
	switch e.Kind() {
	case ast.LiteralKind:
		return e.AsLiteral(), true
	case ast.CallKind:
		call := e.AsCall()
		if call.IsMemberFunction() || len(call.Args()) != 1 || call.Args()[0].Kind() != ast.LiteralKind || call.FunctionName() != overloads.TypeConvertTimestamp {
			return nil, false
		}
		text, ok := call.Args()[0].AsLiteral().(types.String)
		if !ok {
			return nil, false
		}
		at, ok := text.ConvertToType(types.TimestampType).(types.Timestamp)
		return at, ok
	default:
		return nil, false
	}
}

// number64 is a number that compares exactly with any other of 64 bits.
func number64(v ref.Val) (float64, bool) {
	var x float64
	switch n := v.(type) {
	case types.Int:
		x = float64(n)
	case types.Uint:
		x = float64(n)
	case types.Double:
		x = float64(n)
	default:
		return 0, false
	}
	return x, math.Abs(x) <= 1<<53
}
