package fleet

import (
	"slices"

	"github.com/doppel-iot/doppel/sim/device"
)

// sender is a device as its connection sees it. The writer owns it.
type sender struct {
	source  Source
	index   int
	topic   []byte
	pending []device.Sample // a batch in the making; their readings are copies
	held    *message        // waits until the next message has overtaken it

	// awayUntil is when a device that is offline comes back, unix nanoseconds; stored is what it has to say
	// by then.
	awayUntil int64
	stored    []*message

	swapped uint64 // samples sent behind a later one on purpose
}

// add puts a sample into the batch.
func (d *sender) add(s device.Sample) {
	s.Readings = slices.Clone(s.Readings)
	d.pending = append(d.pending, s)
}
