package rules

import (
	"flag"
	"io"
	"regexp"
	"testing"

	"github.com/doppel-iot/doppel/actors/host"
)

var (
	seedFlag  = flag.Uint64("rules.seed", 0, "play only this seed of the unbroken protocol")
	seedsFlag = flag.Uint64("rules.seeds", 300, "how many seeds to play")
)

func TestTheRulesHold(t *testing.T) {
	var trace io.Writer
	from, to := uint64(1), *seedsFlag
	if *seedFlag != 0 {
		from, to, trace = *seedFlag, *seedFlag, t.Output()
	}
	var sum tally
	for seed := from; seed <= to; seed++ {
		if found := play(t, seed, nil, trace, &sum); found != "" {
			t.Errorf("seed %d: %s\nplay it again: go test ./sim/fault/rules -run TestTheRulesHold -rules.seed=%d", seed, found, seed)
		}
	}
	t.Logf("%+v", sum)
}

// TestBrokenRules: each host breaks one rule, and the judge sees it within a bounded number of worlds, by
// what is wrong with the data and not by some side effect of how the rule was broken.
func TestBrokenRules(t *testing.T) {
	const (
		unsafe  = `stands in no record that counts|took no effect` // let out and lost
		differs = `has state hash|serves|is not what its fold gives|differences at its replay`
		numbers = `set digest|digest .*, want`
	)
	for _, tc := range []struct {
		name   string
		broken breaks
		want   string // evidence
		within uint64
		step   uint64 // 4: only slow worlds
	}{
		{"fence off", fenceOff, unsafe, 50, 1},
		{"acknowledged before durable", ackedEarly, unsafe, 20, 1},
		{"hole not read", holeNotRead, unsafe, 50, 1},
		{"duplicate acknowledged before its original is durable", duplicateAtOnce, unsafe, 20, 1},
		{"stale checkpoint accepted", floors(trustStale), differs, 2000, 4},
		{"newer checkpoint accepted", trustNewer, differs, 2000, 4},
		{"failed produce ignored", failureIgnored, unsafe, 50, 1},
		{"no idle check", noIdleCheck, differs, 1500, 1},
		{"valid by epoch alone", renumbered(false), differs, 500, 1},
		{"valid whatever the epoch", renumbered(true), differs, 500, 1},
		{"no effects cursor", floors(noEffectsNext), `was never published`, 500, 1},
		{"ingest from its start", floors(ingestAnew), `handled up to`, 500, 1},
		{"ingest from where it was consumed", floors(ingestConsumed), numbers, 500, 1},
		{"floor before its checkpoints are durable", floorAhead, differs, 4000, 4},
		{"gap without a barrier", func(_ *node, cfg *host.Config) { cfg.Ingest = noBarrier{cfg.Ingest} }, `a gap gives up on`, 200, 1},
		{"retention shorter than a pause", func(n *node, cfg *host.Config) { cfg.Retention = hasty{cfg.Retention, n.w} }, `retention removed records`, 500, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			evidence := regexp.MustCompile(tc.want)
			var sum tally
			other := map[string]int{}
			for seed := uint64(1); seed <= tc.within; seed += tc.step {
				found := play(t, seed, tc.broken, nil, &sum)
				if evidence.MatchString(found) {
					t.Logf("caught by seed %d: %s (others before: %v)", seed, found, other)
					return
				}
				if found != "" {
					other[found]++
				}
			}
			t.Errorf("not caught by %d worlds; what they found: %v", tc.within, other)
		})
	}
}
