package world

import (
	"flag"
	"regexp"
	"slices"
	"testing"

	"github.com/doppel-iot/doppel/actors/host"
)

var medianFlag = flag.Uint64("median", 1, "how many times each broken variant must be caught anew, to find how long it takes")

// What a world says of data that is wrong, as opposed to side effects of how a rule was broken.
const (
	unsafe  = `stands in no record that counts|is no dead letter`
	differs = `has state hash|is not what its fold gives|differences at its replay`
)

// variants are the broken variants of the protocol's model that chance meets, by the names they have there, and
// some more; the others are in directed.
var variants = []struct {
	name   string
	breaks breaks
	want   string // evidence
}{
	{"no-hole-check", breaks{host: changelog(fenceOff)}, unsafe},
	{"ack-early", breaks{host: changelog(ackedEarly)}, unsafe},
	{"async-hole", breaks{host: changelog(holeAside)}, unsafe},
	{"dup-ack-early", breaks{offer: duplicateAtOnce}, unsafe},
	{"apply-all", breaks{host: changelog(renumbered(anyRecord))}, differs},
	{"straggler-input", breaks{host: changelog(renumbered(stragglingSample))}, differs},
	{"straggler-input-patch", breaks{host: changelog(renumbered(stragglingPatch))}, differs},
	{"straggler-relog", breaks{host: changelog(loggedAgain)}, `patch .* counts`},
	{"epoch-only", breaks{host: changelog(renumbered(ofEpoch))}, differs},
	{"ignore-fail", breaks{host: changelog(failureIgnored)}, unsafe},
	{"no-reclaim", breaks{stepped: noReclaim}, `nobody serves`},
	{"commit-early", breaks{host: consumed}, `samples took no effect`},
	{"start-at-committed", breaks{host: committed}, `handled up to`},
	{"gap-no-barrier", breaks{host: byTimeAlone}, `a gap gives up on`},
	{"ckpt-unreleased", breaks{host: unreleased}, differs},
	{"ckpt-newer-trusted", breaks{host: trustNewer}, differs},
	{"floor-ahead", breaks{host: floorAhead, climate: deadly}, differs},
	{"retention-short", breaks{host: func(p *process, cfg *host.Config) { cfg.Retention = hasty{cfg.Retention, p.w} }}, `nobody serves`},
	{"cold-reader", breaks{coldReader: true}, `a reader from offset`},
	{"alerts-no-cursor", breaks{host: floors(noEffectsNext), climate: deadly}, `transitions are not published|subscribers are told of .* and never of`},
	// Not in the model: several gateways, and messages that hop.
	{"gap-no-clearance", breaks{host: func(_ *process, cfg *host.Config) { cfg.Gateways = nil }}, `a gap gives up on`},
	{"gap-no-ingest", breaks{climate: lagging, host: func(_ *process, cfg *host.Config) { cfg.Ingest = noBarrier{cfg.Ingest} }}, `a gap gives up on`},
	{"clear-sent-only", breaks{sentOnly: true, climate: narrow}, `a gap gives up on`},
	{"no-adoption", breaks{unadopted: true}, `messages are not acknowledged|samples took no effect`},
	{"accepted-is-released", breaks{wire: acceptedIsReleased}, unsafe},
}

// TestVariants: each variant breaks one rule, and a world sees it within a bounded number of schedules, by what
// is wrong with the data.
func TestVariants(t *testing.T) {
	const within = 10_000
	lab := NewLab()
	for _, v := range variants {
		t.Run(v.name, func(t *testing.T) {
			evidence := regexp.MustCompile(v.want)
			var sum Counts
			var took []int
			other := map[string]int{}
			last := uint64(0)
			for seed := uint64(1); seed <= within; seed++ {
				found := lab.play(seed, &v.breaks, nil, &sum)
				switch {
				case evidence.MatchString(found):
					if took = append(took, int(seed-last)); len(took) == 1 {
						t.Logf("seed %d: %.300s", seed, found)
					}
					if last = seed; uint64(len(took)) < *medianFlag {
						continue
					}
					slices.Sort(took)
					t.Logf("caught after %d schedules (median of %d), other findings %d", took[len(took)/2], len(took), len(other))
					return
				case found != "":
					other[found]++
				}
			}
			t.Errorf("caught %d times by %d worlds; what else they found: %v", len(took), within, other)
		})
	}
}
