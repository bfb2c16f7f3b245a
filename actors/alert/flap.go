package alert

import (
	"fmt"
	"slices"
)

// flaps notes that an alert fires, and says whether that is too often.
func (t *tracker) flaps(r *compiled, at int64) bool {
	if r.FlapCount == 0 {
		t.fires = nil
		return false
	}
	t.fires = append(slices.DeleteFunc(t.fires, func(then int64) bool { return at-then >= int64(r.FlapWindow) }), at)
	if most := int(r.FlapCount) + 1; len(t.fires) > most {
		t.fires = slices.Delete(t.fires, 0, len(t.fires)-most)
	}
	return len(t.fires) > int(r.FlapCount)
}

// flapReason is what is added to the reason of an alert that begins to flap.
func flapReason(r *compiled) string {
	return fmt.Sprintf("; it fired more than %d times within %s and stays until that long quiet", r.FlapCount, duration(r.FlapWindow))
}
