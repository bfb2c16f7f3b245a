package fault

import (
	"time"

	"github.com/doppel-iot/doppel/sim/device"
)

// Choice is a kind of fault that may be drawn.
type Choice struct {
	Subject Subject
	Kind    Kind
	Weight  int
	// Least and Most bound how long it lasts.
	Least, Most time.Duration
	// Requests bounds how many produce requests are hit; 0 for other kinds.
	Requests int
	// Rest is how long the subject is then left alone, so that what takes long to start gets to work.
	Rest time.Duration
}

// The distance between the beginnings of two faults; they may last longer and overlap.
const (
	minGap = time.Second
	maxGap = 3 * time.Second
)

// Schedule draws n faults from a menu. It is a function of its arguments, and the beginning of a longer
// schedule of the same seed.
func Schedule(seed uint64, menu []Choice, n int) []Fault { return dense.schedule(seed, menu, n) }

// schedule is Schedule at a pace.
func (p Pace) schedule(seed uint64, menu []Choice, n int) []Fault {
	random := device.NewRandom(seed, scheduleStream)
	between := func(low, high time.Duration) time.Duration {
		return time.Duration(random.Between(float64(low), float64(high))).Round(time.Millisecond)
	}
	free := make(map[Subject]time.Duration)
	var faults []Fault
	for at := between(p.Least, p.Most); len(faults) < n; at += between(p.Least, p.Most) {
		c := draw(random, menu, func(s Subject) bool { return free[s] <= at })
		if c == nil {
			continue // everything is busy: later
		}
		f := Fault{At: at, Subject: c.Subject, Kind: c.Kind, For: between(c.Least, c.Most)}
		if c.Requests > 0 {
			f.For, f.Requests = 0, 1+random.Intn(c.Requests)
		}
		free[f.Subject] = at + f.For + c.Rest
		faults = append(faults, f)
	}
	return faults
}

// scheduleStream keeps the schedule's numbers apart from those of the devices of the same seed.
const scheduleStream = 1 << 40

// draw picks one of the choices that are allowed now, by weight; nil: there is none.
func draw(random *device.Random, menu []Choice, allowed func(Subject) bool) *Choice {
	total := 0
	for i := range menu {
		if allowed(menu[i].Subject) {
			total += menu[i].Weight
		}
	}
	if total == 0 {
		return nil
	}
	left := random.Intn(total)
	for i := range menu {
		if !allowed(menu[i].Subject) {
			continue
		}
		if left -= menu[i].Weight; left < 0 {
			return &menu[i]
		}
	}
	return nil
}
