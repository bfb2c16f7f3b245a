package fleet

import (
	"sync/atomic"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// totals are the accounts of one connection, under its lock; swapped alone is the writer's.
type totals struct {
	sent, acked    uint64 // samples
	resent         uint64 // samples
	messages       uint64 // acknowledged PUBLISHes of every kind
	duplicates     uint64 // samples sent a second time on purpose
	poisons        uint64 // acknowledged broken messages
	poisonsSent    uint64
	cuts, refusals uint64
	absences       uint64 // of devices, on purpose
	lastReason     byte
	swapped        atomic.Uint64 // samples sent behind a later one on purpose
	latency        *hdrhistogram.Histogram
}

// newHistogram holds 1 µs to 10 minutes with two digits, in µs.
func newHistogram() *hdrhistogram.Histogram {
	return hdrhistogram.New(1, 600e6, 2)
}

func newTotals() totals { return totals{latency: newHistogram()} }

// wrote counts the first write of a message.
func (t *totals) wrote(s *slot) {
	n := uint64(s.samples)
	switch s.kind {
	case sampleMessage:
		t.sent += n
	case duplicateMessage:
		t.duplicates += n
	case poisonMessage:
		t.poisonsSent++
	case wordMessage:
	}
}

// acknowledged counts a PUBACK.
func (t *totals) acknowledged(s *slot, now int64) {
	t.messages++
	switch s.kind {
	case sampleMessage:
		t.acked += uint64(s.samples)
		_ = t.latency.RecordValue(min(max((now-s.sentAt)/1000, 1), 600e6))
	case poisonMessage:
		t.poisons++
	case duplicateMessage, wordMessage:
	}
}

// Progress is how far a fleet has come. Counts are samples unless they say otherwise.
type Progress struct {
	Sent, Acked, Resent, Duplicates, Swapped uint64
	Messages                                 uint64 // acknowledged PUBLISHes, faults included
	PoisonSent, PoisonAcked                  uint64 // messages
	Cuts, Refusals                           uint64
	Absences                                 uint64 // of devices
	LastRefusal                              byte   // PUBACK reason
	Behind                                   int64
	Inflight                                 int // messages
	// Latency is publish to PUBACK in µs since the previous call.
	Latency *hdrhistogram.Histogram
}

// collect adds a connection's accounts to p and starts a new latency interval.
func (c *conn) collect(p *Progress) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := &c.totals
	p.Sent += t.sent
	p.Acked += t.acked
	p.Resent += t.resent
	p.Duplicates += t.duplicates
	p.Swapped += t.swapped.Load()
	p.Messages += t.messages
	p.PoisonSent += t.poisonsSent
	p.PoisonAcked += t.poisons
	p.Cuts += t.cuts
	p.Refusals += t.refusals
	p.Absences += t.absences
	if t.lastReason != 0 {
		p.LastRefusal = t.lastReason
	}
	p.Inflight += c.window.waiting()
	p.Behind = max(p.Behind, c.behind.Load())
	p.Latency.Merge(t.latency)
	t.latency.Reset()
}
