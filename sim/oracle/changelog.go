package oracle

import (
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// changelog counts the samples of this run in the records of doppel.telemetry. It belongs to the
// goroutine that consumes them.
type changelog struct {
	boot   uint64
	ledger *ledger
	// epochs are those in force at the start, by partition, where they are known.
	epochs  map[int32]uint64
	cursors map[int32]*cursor
	devices []foundLog
	latency *hdrhistogram.Histogram // publish → record visible, µs
	void    uint64
	total   uint64 // samples of this run found
}

// cursor is a reader's position in the epochs of a partition.
type cursor struct {
	epoch, n uint64
	anchored bool
}

// foundLog is what was found of one device.
type foundLog struct {
	times    []uint8 // by number − 1, at most 255
	applied  uint64  // highest number applied in order
	late     uint64
	inverted uint64 // applied behind a higher one
	first    string // first inversion
	// held are the numbers waiting for a lower one, with the logged time of their record.
	held    map[uint64]int64
	hasty   uint64 // gaps declared too early
	hastyAt int64  // offset of the first
}

// How long and how many samples a twin holds before it gives up on what is missing.
const (
	holdTime    = 500 * time.Millisecond
	holdSamples = 64
)

// waited notes what a record says of holding back: a sample held, or a gap declared.
func (f *foundLog) waited(boot uint64, offset int64, e *doppelv1.TwinEvent) {
	switch {
	case e.GetOutcome() == doppelv1.EventOutcome_EVENT_OUTCOME_HELD && e.GetSample().GetBoot() == boot:
		if f.held == nil {
			f.held = make(map[uint64]int64)
		}
		f.held[e.GetSample().GetSeq()] = e.GetNow()
	case e.GetKind() == doppelv1.EventKind_EVENT_KIND_GAP && e.GetGap().GetBoot() == boot && len(f.held) > 0:
		oldest := int64(math.MaxInt64)
		for _, at := range f.held {
			oldest = min(oldest, at)
		}
		if e.GetNow()-oldest < int64(holdTime) && len(f.held) < holdSamples {
			if f.hasty++; f.hasty == 1 {
				f.hastyAt = offset
			}
		}
	}
}

func newChangelog(boot uint64, l *ledger, epochs map[int32]uint64) *changelog {
	return &changelog{
		boot: boot, ledger: l, epochs: epochs,
		cursors: make(map[int32]*cursor),
		devices: make([]foundLog, len(l.devices)),
		latency: hdrhistogram.New(1, 600e6, 2),
	}
}

// valid applies the rules for readers: a Claim opens an epoch, and a record counts only if it is the
// next one of the epoch in force. A reader that starts in the middle takes the first record of the
// epoch that the node says is in force for its anchor.
func (c *changelog) valid(partition int32, offset int64, e *doppelv1.TwinEvent) bool {
	cur := c.cursors[partition]
	if cur == nil {
		cur = &cursor{}
		c.cursors[partition] = cur
	}
	if e.GetKind() == doppelv1.EventKind_EVENT_KIND_CLAIM {
		*cur = cursor{epoch: uint64(offset), anchored: true}
		return false
	}
	if !cur.anchored {
		epoch, known := c.epochs[partition]
		if known && e.GetEpoch() != epoch {
			c.void++
			return false
		}
		*cur = cursor{epoch: e.GetEpoch(), n: e.GetN(), anchored: true}
		return true
	}
	if e.GetEpoch() != cur.epoch || e.GetN() != cur.n+1 {
		c.void++
		return false
	}
	cur.n++
	return true
}

// record takes one record as it became visible at a time.
func (c *changelog) record(partition int32, offset int64, key string, e *doppelv1.TwinEvent, at time.Time) {
	if !c.valid(partition, offset, e) {
		return
	}
	i, ours := c.ledger.index[key]
	if !ours {
		return
	}
	c.devices[i].waited(c.boot, offset, e)
	for _, s := range e.GetApplied() {
		boot, seq := s.GetBoot(), s.GetSeq()
		if s.GetOwn() {
			boot, seq = e.GetSample().GetBoot(), e.GetSample().GetSeq()
		}
		if boot != c.boot || seq == 0 {
			continue
		}
		c.devices[i].found(seq, s.GetLate())
		c.total++
		if sent, ok := c.ledger.sentAt(key, seq); ok {
			_ = c.latency.RecordValue(min(max(at.Sub(sent).Microseconds(), 1), 600e6))
		}
	}
}

func (f *foundLog) found(seq uint64, late bool) {
	if n := int(seq) - len(f.times); n > 0 {
		f.times = append(f.times, make([]uint8, n)...)
	}
	delete(f.held, seq)
	if t := &f.times[seq-1]; *t < 255 {
		*t++
	}
	switch {
	case late:
		f.late++
	case seq <= f.applied:
		if f.inverted++; f.inverted == 1 {
			f.first = fmt.Sprintf("number %d applied behind %d", seq, f.applied)
		}
	default:
		f.applied = seq
	}
}

// judge compares what was found with what the devices sent.
func (c *changelog) judge(devices []Device) *account {
	a := &account{source: "kafka"}
	for _, d := range devices {
		f := &c.devices[c.ledger.index[d.ID]]
		var lost, doubled, firstLost, firstDoubled uint64
		for seq := uint64(1); seq <= d.Sum.Samples; seq++ {
			n := uint8(0)
			if seq <= uint64(len(f.times)) {
				n = f.times[seq-1]
			}
			if n == 0 && !slices.Contains(d.Unacked, seq) {
				if lost++; lost == 1 {
					firstLost = seq
				}
			}
			if n > 1 {
				if doubled++; doubled == 1 {
					firstDoubled = seq
				}
			}
		}
		if lost > 0 {
			a.add(Finding{Lost, d.ID, lost, fmt.Sprintf("%d of %d samples in no valid record, first number %d", lost, d.Sum.Samples, firstLost)})
		}
		if doubled > 0 {
			a.add(Finding{Duplicated, d.ID, doubled, fmt.Sprintf("%d samples in more than one record, first number %d", doubled, firstDoubled)})
		}
		// A number seen twice is an inversion too, and counted already.
		if f.inverted > doubled {
			a.add(Finding{Reordered, d.ID, f.inverted - doubled, f.first})
		}
		if f.late > d.Swapped {
			a.add(Finding{Reordered, d.ID, f.late - d.Swapped, fmt.Sprintf("%d samples late, though only %d were swapped", f.late, d.Swapped)})
		}
		if f.hasty > 0 {
			a.add(Finding{Reordered, d.ID, f.hasty, fmt.Sprintf("%d gaps declared before 500 ms or 64 samples were held, first at offset %d", f.hasty, f.hastyAt)})
		}
	}
	return a
}

// complete tells whether every acknowledged sample was found.
func (c *changelog) complete(devices []Device) bool {
	want := uint64(0)
	for _, d := range devices {
		want += d.Sum.Samples - uint64(len(d.Unacked))
	}
	return c.total >= want
}
