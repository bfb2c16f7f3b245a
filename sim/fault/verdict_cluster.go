package fault

import (
	"fmt"
	"maps"
	"slices"

	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// telling is a transition as people would tell it from others.
func telling(a *doppelv1.Alert) string {
	return fmt.Sprintf("%s %s %s %s at %d (sample %d)", a.GetDevice(), a.GetId(), a.GetState(), a.GetSeverity(), a.GetUpdateTime().AsTime().UnixNano(), a.GetSeq())
}

// audience: a subscriber heard, of each device, every transition of the log once and in its order. must is
// what it had to hear, all also what was written later and it may not have heard yet.
func (v *verdict) audience(name string, h *heard, must, all map[int32]*fold) {
	if h.gaps > 0 {
		v.add("%s: was told of %d gaps, though nothing was too old to be resumed", name, h.gaps)
	}
	var missing, doubled, disorder, invented []string
	for _, p := range slices.Sorted(maps.Keys(all)) {
		f := all[p]
		for id, want := range f.stories {
			got := h.stories[id]
			place := make(map[string]int, len(want))
			for i, a := range want {
				place[telling(a)] = i
			}
			times := make(map[int]int)
			last := -1
			for _, a := range got {
				i, known := place[telling(a)]
				if !known {
					invented = append(invented, telling(a))
					continue
				}
				if times[i]++; times[i] > 1 {
					doubled = append(doubled, telling(a))
				} else if i < last {
					disorder = append(disorder, telling(a))
				}
				last = max(last, i)
			}
			needed := 0
			if m := must[p]; m != nil {
				needed = len(m.stories[id])
			}
			for i := range needed {
				if times[i] == 0 {
					missing = append(missing, telling(want[i]))
				}
			}
		}
	}
	for id, got := range h.stories {
		if !storied(all, id) {
			invented = append(invented, telling(got[0]))
		}
	}
	v.some(name+": transitions never heard", missing)
	v.some(name+": transitions heard again", doubled)
	v.some(name+": transitions heard behind later ones", disorder)
	v.some(name+": transitions that never were", invented)
}

func storied(folds map[int32]*fold, id string) bool {
	for _, f := range folds {
		if len(f.stories[id]) > 0 {
			return true
		}
	}
	return false
}

// complete says whether it has heard everything it must.
func (h *heard) complete(must map[int32]*fold) bool {
	for _, f := range must {
		for id, want := range f.stories {
			if len(h.stories[id]) < len(want) {
				return false
			}
		}
	}
	return true
}

// answers: a node, whichever it is, answers for the whole fleet, and each device's numbers are those of the
// fold of the log. Only what samples change is compared: time goes on.
func (v *verdict) answers(node Subject, folds map[int32]*fold, shows map[string]*doppelv1.Twin) {
	var wrong []string
	want := 0
	for _, f := range folds {
		want += len(f.twins)
		for id, t := range f.twins {
			got := shows[id]
			switch {
			case got == nil:
				wrong = append(wrong, id+" is missing")
			case got.GetDigest() != t.Digest() || got.GetSetDigest() != t.SetDigest():
				wrong = append(wrong, fmt.Sprintf("%s has digests %016x %016x, want %016x %016x", id, got.GetDigest(), got.GetSetDigest(), t.Digest(), t.SetDigest()))
			case got.GetStale():
				wrong = append(wrong, id+" is stale at rest")
			}
		}
	}
	v.some(string(node)+": answers unlike the log", wrong)
	if len(shows) > want {
		v.add("%s: answers for %d twins, %d in the log", node, len(shows), want)
	}
}

// once: each of the samples 1 to want of each device stands in the valid records of the log exactly once.
func (v *verdict) once(times map[string]*timeline, want map[string]uint64) {
	var lost, doubled, late []string
	for id, n := range want {
		t := times[id]
		for seq := uint64(1); seq <= n; seq++ {
			switch c := t.count(seq); {
			case c == 0:
				lost = append(lost, fmt.Sprintf("%s %d", id, seq))
			case c > 1:
				doubled = append(doubled, fmt.Sprintf("%s %d, %d times", id, seq, c))
			}
		}
		if t != nil && t.late > 0 {
			late = append(late, fmt.Sprintf("%s: %d", id, t.late))
		}
	}
	v.some("samples in no valid record", lost)
	v.some("samples in several valid records", doubled)
	v.some("devices with late samples, so that their digest differs", late)
}
