package rules

import (
	"flag"
	"io"
	"testing"
)

var (
	seedFlag  = flag.Uint64("rules.seed", 0, "play only this seed of the unbroken protocol")
	seedsFlag = flag.Uint64("rules.seeds", 60, "how many seeds to play")
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
