// Package history answers what a metric of a device was: from a time series store, completed with what
// the store does not have yet, or from the log alone.
//
// The log is the truth: a sample is a row once a valid record applied it, and a later row of the same
// device, time, boot and number replaces an earlier one, as the store's deduplication does it. So both
// sources give the same answer, but for the last bits of a mean over many values.
//
// It does not know what a device is now (actors/host), and it writes nothing. A Reader is safe for
// concurrent use; what it reads from the log costs time in proportion to what all devices of the partition
// wrote since, so only a few such readings run at a time.
package history

import (
	"cmp"
	"errors"

	"github.com/doppel-iot/doppel/actors/host"
)

// What a question can meet; people see these words.
var (
	// ErrTooMuch answers for more than the log can be searched for.
	ErrTooMuch = errors.New("that is too much to be read from the log: ask for a shorter time, or give the nodes a QuestDB")
	// ErrBehind answers while the store lacks rows that the log cannot be asked for.
	ErrBehind = errors.New("the time series store does not answer, or is far behind")
)

// The sources of a Page.
const (
	FromStore = "questdb"
	FromLog   = "log"
)

// Query asks for the samples of a metric with Start <= time < End, in the order of Place.
type Query struct {
	Device, Metric string
	Start, End     int64 // unix nanoseconds
	// Interval of buckets, nanoseconds, the first of which begins at Start; 0: single samples.
	Interval int64
	// After: only what stands behind it; of buckets its Time counts. The zero Place: from the start.
	After Place
	// Limit bounds the points returned.
	Limit int
}

// bucket is the number of the bucket of a time, from 0.
func (q *Query) bucket(t int64) int64 { return (t - q.Start) / q.Interval }

// from is the first time that can be of an answer.
func (q *Query) from() int64 {
	switch {
	case q.After == (Place{}):
		return q.Start
	case q.Interval > 0:
		return min(q.Start+(q.bucket(q.After.Time)+1)*q.Interval, q.End)
	default:
		return q.After.Time
	}
}

// wants says whether a sample belongs to the answer.
func (q *Query) wants(at Place) bool {
	if at.Time < q.from() || at.Time >= q.End {
		return false
	}
	return q.Interval > 0 || q.After.Compare(at) < 0
}

// Place orders the samples of a device: by time, then by number. No two have all three in common.
type Place struct {
	Time      int64  // unix nanoseconds
	Boot, Seq uint64 // unnumbered: 0 and the twin's applied count
}

// Compare is negative if p stands before o.
func (p Place) Compare(o Place) int {
	return cmp.Or(cmp.Compare(p.Time, o.Time), cmp.Compare(p.Boot, o.Boot), cmp.Compare(p.Seq, o.Seq))
}

// Point is a sample, or what became of the samples of a bucket, whose Time is where it begins.
type Point struct {
	Place
	Value, Z float64 // of a sample; Z NaN: none
	// Of a bucket; it has at least one sample.
	Count          uint64
	Mean, Min, Max float64
}

// Page is the first part of an answer.
type Page struct {
	Points []Point
	More   bool   // there are points behind the last one
	Source string // FromStore or FromLog
	// RetainedFrom: samples received before may be missing, as the log no longer has them. 0: none are.
	RetainedFrom int64
}

// Start is where a reading of a log begins: at a cursor, or at an offset nothing is known about.
type start struct {
	host.Cursor
	bare bool
}
