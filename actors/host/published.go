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
