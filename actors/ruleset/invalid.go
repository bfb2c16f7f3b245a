package ruleset

import (
	"fmt"
	"strings"
)

// Invalid is a rule or a silence that cannot be.
type Invalid struct { //nolint:errname // it reads as what it says: errors.As(err, &invalid)
	// Field is its path in the message, such as levels[warning].exit.
	Field string
	// Text says what is wrong and what to do about it.
	Text string
}

func (e *Invalid) Error() string { return e.Field + ": " + e.Text }

func invalid(field, format string, args ...any) error {
	return &Invalid{Field: field, Text: fmt.Sprintf(format, args...)}
}

// fromCompile makes an Invalid of what alert.NewSet says of the one rule it was given: rule "ID": FIELD: TEXT.
func fromCompile(id string, err error) error {
	text := strings.TrimPrefix(err.Error(), fmt.Sprintf("rule %q: ", id))
	field, text, ok := strings.Cut(text, ": ")
	if !ok || strings.ContainsAny(field, " \"") {
		return &Invalid{Field: "id", Text: err.Error()}
	}
	return &Invalid{Field: path(field), Text: text}
}

// path is the name of a field of a message: levels.warning.exit is levels[warning].exit.
func path(field string) string {
	rest, ok := strings.CutPrefix(field, "levels.")
	if !ok {
		return field
	}
	severity, member, ok := strings.Cut(rest, ".")
	if !ok {
		return "levels[" + severity + "]"
	}
	return "levels[" + severity + "]." + member
}
