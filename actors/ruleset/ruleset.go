// Package ruleset makes rules that run of rules as people write them: what a partition's log, a node and
// the API have as messages becomes an alert.Set, with the expressions in it compiled.
//
// It reads and writes nothing, decides nothing about who may change a rule, and knows no request: an
// Invalid says which field is wrong and what to do about it, and whoever asked makes an answer of that.
//
// Concurrency: a Compiler is safe for concurrent use. A Set never changes, so that all twins of a node
// share one.
package ruleset

import (
	"cmp"
	"fmt"
	"slices"
	"sync"

	"github.com/cespare/xxhash/v2"
	"google.golang.org/protobuf/proto"

	"github.com/doppel-iot/doppel/actors/alert"
	"github.com/doppel-iot/doppel/actors/filter"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// Set is the rules and silences in force from some record of a partition's log on.
type Set struct {
	// Offset in doppel.rules behind the last record that the set includes; 0: the built-in rules.
	Offset int64
	// Encoded is the doppelv1.RulesInput it was made of; nil: the built-in rules.
	Encoded []byte
	// Alerts is what twins are stepped with.
	Alerts *alert.Set
	// Skipped says which of its rules and silences this build cannot run, and why.
	Skipped []error
}

// kept is how many of the last sets are remembered: partitions come to the same ones one after another.
const kept = 16

// Compiler compiles rules.
type Compiler struct {
	// Environments cost milliseconds to make, and most rules need none.
	twins, alerts func() (*filter.Env, error)

	mu   sync.Mutex
	sets []remembered // newest last
}

type remembered struct {
	hash uint64
	set  *Set
}

// NewCompiler returns a Compiler.
func NewCompiler() *Compiler {
	return &Compiler{
		twins:  sync.OnceValues(func() (*filter.Env, error) { return filter.NewEnv(&doppelv1.Twin{}) }),
		alerts: sync.OnceValues(func() (*filter.Env, error) { return filter.NewEnv(&doppelv1.Alert{}) }),
	}
}

// Encode gives the stored form of rules and silences; the same ones give the same bytes. Rules that are
// off are left out.
func Encode(in *doppelv1.RulesInput) ([]byte, error) {
	in = &doppelv1.RulesInput{Offset: in.GetOffset(), Rules: slices.Clone(in.GetRules()), Silences: slices.Clone(in.GetSilences())}
	in.Rules = slices.DeleteFunc(in.GetRules(), func(r *doppelv1.Rule) bool { return r.GetMode() == alert.ModeOff })
	slices.SortFunc(in.GetRules(), func(a, b *doppelv1.Rule) int { return cmp.Compare(a.GetId(), b.GetId()) })
	slices.SortFunc(in.GetSilences(), func(a, b *doppelv1.Silence) int { return cmp.Compare(a.GetId(), b.GetId()) })
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(in)
	if err != nil {
		return nil, fmt.Errorf("rules: %w", err)
	}
	return b, nil
}

// Compile makes a Set of what Encode gave, here or in another build. What of it this build cannot run is
// left out and named: a partition goes on without that rule rather than not at all.
func (c *Compiler) Compile(encoded []byte) *Set {
	hash := xxhash.Sum64(encoded)
	if s := c.remembered(hash, encoded); s != nil {
		return s
	}
	s := c.compile(slices.Clone(encoded))
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.sets) == kept {
		c.sets = slices.Delete(c.sets, 0, 1)
	}
	c.sets = append(c.sets, remembered{hash, s})
	return s
}

func (c *Compiler) remembered(hash uint64, encoded []byte) *Set {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range slices.Backward(c.sets) {
		if r.hash == hash && string(r.set.Encoded) == string(encoded) {
			return r.set
		}
	}
	return nil
}

func (c *Compiler) compile(encoded []byte) *Set {
	s := &Set{Encoded: encoded}
	var in doppelv1.RulesInput
	if err := proto.Unmarshal(encoded, &in); err != nil {
		s.Skipped = append(s.Skipped, fmt.Errorf("rules are not readable: %w", err))
	}
	s.Offset = int64(in.GetOffset())
	seen := make(map[string]bool, len(in.GetRules())+len(in.GetSilences())) // by key in doppel.rules
	rules := make([]alert.Rule, 0, len(in.GetRules()))
	for _, p := range in.GetRules() {
		r, err := c.Rule(p)
		if err == nil && seen[r.ID] {
			err = fmt.Errorf("rule %q is there twice", r.ID)
		}
		if err != nil {
			s.Skipped = append(s.Skipped, fmt.Errorf("rule %q: %w", p.GetId(), err))
			continue
		}
		seen[r.ID] = true
		rules = append(rules, r)
	}
	silences := make([]alert.Silence, 0, len(in.GetSilences()))
	for _, p := range in.GetSilences() {
		one, err := c.Silence(p)
		if err == nil && seen[SilenceKey(one.ID)] {
			err = fmt.Errorf("silence %q is there twice", one.ID)
		}
		if err != nil {
			s.Skipped = append(s.Skipped, fmt.Errorf("silence %q: %w", p.GetId(), err))
			continue
		}
		seen[SilenceKey(one.ID)] = true
		silences = append(silences, one)
	}
	set, err := alert.NewSet(rules, silences...)
	if err != nil { // each of them compiles by itself
		s.Skipped = append(s.Skipped, err)
		set = &alert.Set{}
	}
	s.Alerts = set
	return s
}
