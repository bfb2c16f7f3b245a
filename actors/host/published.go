package host

import doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"

// Published is a transition as it stands in doppel.alerts. The same transition may stand there more
// than once, and behind newer ones of its partition (E1, E2): its cause orders it, not its place.
type Published struct {
	Partition int32
	At        int64 // offset in doppel.alerts
	Offset    int64 // of its cause in the changelog
	Index     int   // among the transitions of that record
	Alert     *doppelv1.Alert
}

// AlertPlace is how far a reader of doppel.alerts is with one partition. Offset and Index are of the newest
// transition it has met: what stands behind Next and not behind that one was told before.
type AlertPlace struct {
	Next   int64 // offset in doppel.alerts
	Offset int64 // of the newest cause in the changelog; -1: none yet
	Index  int
}

// Told says whether a transition was met before.
func (a AlertPlace) Told(t *Published) bool {
	return t.Offset < a.Offset || t.Offset == a.Offset && t.Index <= a.Index
}
