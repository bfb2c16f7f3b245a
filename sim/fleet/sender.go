package fleet

import (
	"slices"

	"github.com/doppel-iot/doppel/sim/device"
)

// holdLimit is the distance between the writing of a later sample and the PUBACK of an earlier one
// below which the node surely had both in time to put them in order: a twin waits 500 ms. Beyond it
// nobody can tell from outside whether fleet, network or node was slow.
const holdLimit = int64(400e6)

// sender is a device as its connection sees it. The writer owns it.
type sender struct {
	source  Source
	index   int
	topic   []byte
	pending []device.Sample // a batch in the making; their readings are copies
	held    *message        // waits until the next message has overtaken it

	// slow counts the samples, sent behind a later one on purpose, that may have reached the twin too
	// late to be put in order. Under the connection's lock.
	slow uint64
}

// add puts a sample into the batch.
func (d *sender) add(s device.Sample) {
	s.Readings = slices.Clone(s.Readings)
	d.pending = append(d.pending, s)
}

// acknowledged notes when a message that another had overtaken was safe.
func (d *sender) acknowledged(s *slot, now int64) {
	if s.overtaken > 0 && now-s.overtaken > holdLimit {
		d.slow += uint64(s.samples)
	}
}
