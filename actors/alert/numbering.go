package alert

import "fmt"

// Setback is where a device's numbering stands and the number that lies too far behind it.
type Setback struct {
	Current   uint64 // boot in force
	Boot, Seq uint64 // number that was refused
}

// WentBack notes that a sample was refused because its boot lies before those in force. Its alert
// fires with the first such sample, once: it stands until Renumbered, or until samples have been
// accepted with no such refusal for the rule's window.
func (b *Book) WentBack(s *Set, device string, at int64, n Setback, emit *[]Alert) {
	in := turn{s, device, at, emit}
	for _, r := range s.numbering {
		if !r.matches(device, b.tags) {
			continue
		}
		if t := b.find(r.ID, ""); t == nil || t.open == nil {
			e := evidence{
				begin: 1, now: 1, at: at,
				observation: &Observation{Value: float64(n.Boot), Boot: n.Boot, Seq: n.Seq},
				why:         fmt.Sprintf("numbering went back from boot %d to boot %d; reset the twin to accept it", n.Current, n.Boot),
			}
			b.advance(&in, r, "", &e)
		}
		b.find(r.ID, "").open.breach = at
	}
	b.schedule(s, device, at)
}

// Renumbered notes that the numbering is accepted anew.
func (b *Book) Renumbered(s *Set, device string, at int64, emit *[]Alert) {
	if b.timed == 0 {
		return
	}
	in := turn{s, device, at, emit}
	for _, r := range s.numbering {
		if t := b.find(r.ID, ""); t != nil && t.open != nil {
			b.resolve(&in, r, t, &evidence{at: at, value: t.open.alert.Value, why: "the twin was reset and accepts numbering anew"})
		}
	}
	b.schedule(s, device, at)
}

// judgeNumbering ends the alert once samples are accepted again and no refusal has come for long enough.
func (b *Book) judgeNumbering(in *turn) {
	for _, r := range in.set.numbering {
		if t := b.find(r.ID, ""); t != nil && t.open != nil && in.now >= t.open.quiet(r) {
			b.advance(in, r, "", &evidence{at: in.now, value: t.open.alert.Value})
		}
	}
}
