package fault

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestScheduleFollowsFromItsSeed: what a seed gave once can be replayed, and is what a longer run begins with.
func TestScheduleFollowsFromItsSeed(t *testing.T) {
	for name, menu := range map[string][]Choice{"embedded": EmbeddedMenu(), "real": RealMenu(), "broker": BrokerMenu(), "cluster": ClusterMenu()} {
		one, two := Schedule(7, menu, 60), Schedule(7, menu, 60)
		if diff := cmp.Diff(one, two); diff != "" {
			t.Errorf("%s: two schedules of a seed (-one +two):\n%s", name, diff)
		}
		if diff := cmp.Diff(one[:20], Schedule(7, menu, 20)); diff != "" {
			t.Errorf("%s: a shorter schedule is no beginning (-long +short):\n%s", name, diff)
		}
		if cmp.Equal(one, Schedule(8, menu, 60)) {
			t.Errorf("%s: another seed gives the same schedule", name)
		}
	}
}

// TestScheduleKeepsToItsMenu: distances, durations and rests, and nothing left out for good.
func TestScheduleKeepsToItsMenu(t *testing.T) {
	for name, menu := range map[string][]Choice{"embedded": EmbeddedMenu(), "real": RealMenu(), "broker": BrokerMenu(), "cluster": ClusterMenu()} {
		left := make(map[string]bool)
		for _, c := range menu {
			left[string(c.Subject)+string(c.Kind)] = true
		}
		overlaps := 0
		for seed := range uint64(20) {
			last, until := time.Duration(0), make(map[Subject]time.Duration)
			for _, f := range Schedule(seed, menu, 50) {
				if f.At < last+minGap {
					t.Errorf("%s: seed %d: %v begins %v behind the one before", name, seed, f, f.At-last)
				}
				if f.At < until[f.Subject] {
					t.Errorf("%s: seed %d: %v begins while its subject is busy", name, seed, f)
				}
				for _, end := range until {
					if f.At < end {
						overlaps++
					}
				}
				if f.For > longest || (f.Requests > 0) != (f.Kind == Unanswered || f.Kind == Torn) {
					t.Errorf("%s: seed %d: %v", name, seed, f)
				}
				last, until[f.Subject] = f.At, f.At+f.For
				delete(left, string(f.Subject)+string(f.Kind))
			}
		}
		if len(left) > 0 {
			t.Errorf("%s: never drawn: %v", name, left)
		}
		if name != "broker" && overlaps == 0 {
			t.Errorf("%s: faults never overlap", name)
		}
	}
}

func TestFaultLine(t *testing.T) {
	for want, f := range map[string]Fault{
		"  1.500s  node: kill -9 for 0.250s":                {At: 1500 * time.Millisecond, Subject: Node, Kind: Kill, For: 250 * time.Millisecond},
		" 61.000s  node-kafka: produce unanswered, 3 times": {At: 61 * time.Second, Subject: KafkaLink, Kind: Unanswered, Requests: 3},
	} {
		if got := f.String(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
