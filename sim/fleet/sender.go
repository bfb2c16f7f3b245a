package fleet

import (
	"slices"

	"github.com/doppel-iot/doppel/sim/device"
)

// holdLimit is how long after a later sample an earlier one may come and still be sure to be put in
// order: the twin waits 500 ms.
const holdLimit = int64(400e6)

// sender is a device as its connection sees it. The writer owns it.
type sender struct {
	source  Source
	index   int
	topic   []byte
	pending []device.Sample // a batch in the making; their readings are copies
	held    *message        // waits until the next message has overtaken it

	highest   uint64 // last number written
	highestAt int64
	// slow counts the samples that the fleet itself brought too late for the twin to put in order.
	slow uint64
}

// add puts a sample into the batch.
func (d *sender) add(s device.Sample) {
	s.Readings = slices.Clone(s.Readings)
	d.pending = append(d.pending, s)
}

// wrote notes a first write and tells whether a later sample had been written before.
func (d *sender) wrote(s *slot, now int64) (swapped bool) {
	last := s.first + uint64(s.samples) - 1
	if last < d.highest {
		if now-d.highestAt > holdLimit {
			d.slow += uint64(s.samples)
		}
		return true
	}
	d.highest, d.highestAt = last, now
	return false
}

// resent notes that a message is written again after a connection broke.
func (d *sender) resent(s *slot, now int64) {
	if s.kind == sampleMessage && s.swapped && now-s.sentAt > holdLimit {
		d.slow += uint64(s.samples)
		s.swapped = false // counted
	}
}
