package alert

// Set is a compiled, immutable set of rules.
type Set struct{}

// NewSet compiles rules. Errors name the rule, the field and the remedy.
func NewSet(rules []Rule) (*Set, error) { return &Set{}, nil }
