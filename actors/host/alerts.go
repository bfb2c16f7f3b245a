package host

import (
	"slices"

	"github.com/doppel-iot/doppel/actors/alert"
)

// alertIndex is the open and the recently resolved alerts of a partition, as released.
type alertIndex struct {
	byID     map[uint64]alertEntry
	byDevice map[string][]uint64
	open     int   // of rules that are live
	expiry   int64 // when to look for what is no longer listed
}

type alertEntry struct {
	device string
	alert  alert.Alert
}

const (
	// keepResolved is how long a resolved alert stays listed, by logged time.
	keepResolved = int64(24 * 60 * 60 * 1e9)
	// listedMost is how many alerts of a device are listed, if that many of them are resolved: they are
	// part of its checkpoint, which must fit a record.
	listedMost = 256
	// expireEvery is how often those that are no longer are looked for, whether anybody asks or not.
	expireEvery = int64(60 * 60 * 1e9)
)

func (x *alertIndex) apply(t *Transition) { x.put(t.Device, &t.Alert) }

func (x *alertIndex) put(device string, a *alert.Alert) {
	if x.byID == nil {
		x.byID, x.byDevice = make(map[uint64]alertEntry), make(map[string][]uint64)
	}
	old, known := x.byID[a.ID]
	if !known {
		x.crowdOut(device)
		x.byDevice[device] = append(x.byDevice[device], a.ID)
	} else {
		x.open -= counted(&old.alert)
	}
	x.open += counted(a)
	x.byID[a.ID] = alertEntry{device, *a}
}

// counted is 1 for an alert that counts as open.
func counted(a *alert.Alert) int {
	if a.State == alert.Resolved || a.Shadow {
		return 0
	}
	return 1
}

// crowdOut makes room for one more alert of a device: the oldest resolved one goes.
func (x *alertIndex) crowdOut(device string) {
	ids := x.byDevice[device]
	if len(ids) < listedMost {
		return
	}
	for _, id := range ids { // in the order in which they came
		if x.byID[id].alert.State == alert.Resolved {
			x.remove(id)
			return
		}
	}
}

// of are the alerts of a device, for its checkpoint.
func (x *alertIndex) of(device string) []alert.Alert {
	ids := x.byDevice[device]
	if len(ids) == 0 {
		return nil
	}
	all := make([]alert.Alert, len(ids))
	for i, id := range ids {
		all[i] = x.byID[id].alert
	}
	return all
}

// load makes the alerts of a device those of its checkpoint.
func (x *alertIndex) load(device string, alerts []alert.Alert) {
	for _, id := range slices.Clone(x.byDevice[device]) {
		x.remove(id)
	}
	for i := range alerts {
		x.put(device, &alerts[i])
	}
}

func (x *alertIndex) remove(id uint64) {
	e := x.byID[id]
	x.open -= counted(&e.alert)
	delete(x.byID, id)
	ids := slices.DeleteFunc(x.byDevice[e.device], func(other uint64) bool { return other == id })
	if len(ids) == 0 {
		delete(x.byDevice, e.device)
		return
	}
	x.byDevice[e.device] = ids
}

// expire forgets alerts resolved longer ago than they are listed.
func (x *alertIndex) expire(now int64) {
	x.expiry = now + expireEvery
	for id, e := range x.byID {
		if e.alert.State == alert.Resolved && now-e.alert.UpdateTime > keepResolved {
			x.remove(id)
		}
	}
}
