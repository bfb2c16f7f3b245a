package alert

import "time"

// Diverged notes since when what is desired and what is reported differ; 0: they do not.
func (b *Book) Diverged(s *Set, device string, since, now int64, emit *[]Alert) {
	if since == b.diverged {
		return
	}
	b.diverged = since
	in := turn{s, device, now, emit}
	b.judgeDiverged(&in)
	b.schedule(s, device, now)
}

func (b *Book) judgeDiverged(in *turn) {
	for _, r := range in.set.diverged {
		if !r.matches(in.device, b.tags) {
			continue
		}
		e := evidence{at: in.now}
		if b.diverged != 0 {
			lasted := time.Duration(max(0, in.now-b.diverged))
			e.begin, e.now, e.value = 1, 1, lasted.Seconds()
			e.why = "the device does not report what is desired of it"
			if lasted > 0 {
				e.why += ", for " + duration(lasted)
			}
		}
		b.advance(in, r, "", &e)
	}
}
