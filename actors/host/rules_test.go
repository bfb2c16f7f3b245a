package host

import (
	"bytes"
	"log/slog"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/doppel-iot/doppel/actors/codec"
	"github.com/doppel-iot/doppel/actors/ruleset"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// TestUnderRules: a restore starts where the rules in force are known.
func TestUnderRules(t *testing.T) {
	r := &restoration{o: &owner{log: slog.New(slog.DiscardHandler)}}
	r.floor.Start = codec.Cursor{Next: 100, Epoch: 50, N: 49}
	r.floor.State.RulesAt = 80
	for name, tt := range map[string]struct {
		start    Cursor
		logStart int64
		want     Cursor
	}{
		"at the floor's start":         {Cursor{100, 50, 49}, 0, Cursor{100, 50, 49}},
		"behind the record of rules":   {Cursor{90, 50, 39}, 0, Cursor{90, 50, 39}},
		"in front of it":               {Cursor{70, 50, 19}, 0, Cursor{Next: 50}},
		"in an older epoch":            {Cursor{40, 20, 19}, 0, Cursor{Next: 20}},
		"whose claim is no more there": {Cursor{40, 20, 19}, 30, Cursor{40, 20, 19}},
	} {
		if got := r.underRules(tt.start, tt.logStart); got != tt.want {
			t.Errorf("%s: %v, want %v", name, got, tt.want)
		}
	}
}

// TestLaws: the rules for a record are those of the newest record in front of it that put any in force.
func TestLaws(t *testing.T) {
	builtin, first, second := &ruleset.Set{}, &ruleset.Set{Offset: 3}, &ruleset.Set{Offset: 9}
	var l laws
	if _, ok := l.at(5); ok {
		t.Error("rules are known where nothing was read")
	}
	l.enact(10, builtin, 0)
	if got, ok := l.at(4); !ok || got.set != builtin {
		t.Error("in front of the first built-in rules there may be others")
	}
	l.enact(11, first, 0)
	l.enact(40, second, 0)
	for offset, want := range map[int64]*ruleset.Set{11: builtin, 12: first, 40: first, 41: second, 1 << 40: second} {
		if got, ok := l.at(offset); !ok || got.set != want {
			t.Errorf("at %d: rules %v, want %v", offset, got.set, want)
		}
	}
	for i := range int64(mostLaws) {
		l.enact(100+i, second, 41)
	}
	if got, ok := l.at(41); !ok || got.set != second || got.from != 40 {
		t.Error("rules are forgotten that a floor has to name")
	}
	if _, ok := l.at(40); ok {
		t.Error("rules are known that no floor needs")
	}
	for i := range int64(mostLaws) {
		l.enact(1000+i, second, 1<<40)
	}
	if _, ok := l.at(41); ok {
		t.Error("rules are known that were forgotten")
	}
	if len(l) != mostLaws {
		t.Errorf("%d remembered, want %d", len(l), mostLaws)
	}
	l = nil
	l.enact(10, builtin, 0)
	l.supersede()
	l.enact(11, first, 0)
	if _, ok := l.at(4); ok {
		t.Error("the rules in front of a claim are known, although the epoch begins by naming others")
	}
}

// TestRulesOutliveClaims: an owner that named no rules, as its epoch ended before, does not end those that were in force.
func TestRulesOutliveClaims(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlant()
		h := p.host(t, nil)
		encoded, err := ruleset.Encode(&doppelv1.RulesInput{Offset: 3, Rules: []*doppelv1.Rule{
			{Id: "hot", Kind: "threshold", Metric: "t", Levels: map[string]*doppelv1.Level{"warning": {Enter: 50}}},
		}})
		if err != nil {
			t.Fatal(err)
		}
		h.SetRules(h.Compiler().Compile(encoded))
		h.Own(0)
		synctest.Wait()
		h.Drop(0)
		synctest.Wait()
		p.log.add(nil, codec.AppendEvent(nil, &codec.Event{
			Kind: doppelv1.EventKind_EVENT_KIND_CLAIM, Now: time.Now().UnixNano(), Claim: &codec.Claim{Node: "short"},
		}))
		next := p.host(t, nil) // has not read the rules yet
		next.Own(0)
		synctest.Wait()
		var r replies
		offer(t, next, sample(&r, "d", 1))
		var inForce [][]byte
		for _, rec := range p.log.all() {
			var dec codec.EventDecoder
			var ev codec.Event
			if err := dec.Decode(rec.Value, &ev); err != nil {
				t.Fatal(err)
			}
			switch ev.Kind { //nolint:exhaustive // what matters here
			case doppelv1.EventKind_EVENT_KIND_CLAIM:
				inForce = append(inForce, nil)
			case doppelv1.EventKind_EVENT_KIND_RULES:
				inForce[len(inForce)-1] = ev.Rules
			}
		}
		if want := [][]byte{encoded, nil, encoded}; !slices.EqualFunc(inForce, want, bytes.Equal) {
			t.Errorf("rules in force by epoch %q, want %q", inForce, want)
		}
		if err := next.Release(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
	})
}

// TestRulesBeforeMessages: a message that comes after newer rules meets them, though both wait for the same turn.
func TestRulesBeforeMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlant()
		h := p.host(t, nil)
		h.Own(0)
		synctest.Wait()
		encoded, err := ruleset.Encode(&doppelv1.RulesInput{Offset: 3, Rules: []*doppelv1.Rule{
			{Id: "any", Kind: "threshold", Metric: "t", Levels: map[string]*doppelv1.Level{"warning": {Enter: -1}}},
		}})
		if err != nil {
			t.Fatal(err)
		}
		var r replies
		in := h.parts[0]
		in.turn.Lock() // both wait
		h.SetRules(h.Compiler().Compile(encoded))
		if err := h.Push(t.Context(), 0, []Message{sample(&r, "d", 1)}); err != nil {
			t.Error(err)
		}
		in.turn.Unlock()
		synctest.Wait()
		if alerts, err := h.Alerts(t.Context(), 0); err != nil || len(alerts) != 1 {
			t.Errorf("alerts %v, %v, want one", alerts, err)
		}
		h.Drop(0)
		synctest.Wait()
	})
}
