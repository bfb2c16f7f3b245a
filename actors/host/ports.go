package host

import (
	"context"

	"github.com/doppel-iot/doppel/actors/alert"
	"github.com/doppel-iot/doppel/actors/twin"
)

// Record is one record of a partition's changelog on its way out. Key and Value stay untouched until
// it is acknowledged. Key nil: a Claim.
type Record struct {
	N          uint64 // count in the epoch; 0 for a Claim
	Key, Value []byte
}

// Acks takes the acknowledgements of one owner loop. Ack is called exactly once for each record, in
// the order they were appended, from a goroutine of the log, and must not block. offset is -1 when
// the log does not know it.
type Acks interface {
	Ack(n uint64, offset int64, err error)
}

// LogRecord is one record as it stands in the log. Key and Value are valid during the callback only.
type LogRecord struct {
	Offset     int64
	Key, Value []byte
}

// Log is one topic of the log by partitions: doppel.telemetry, the changelog whose fold is the state
// of every twin, or doppel.state with checkpoints of that fold. Compaction may have removed records
// of the latter.
type Log interface {
	// Append hands records of partition p to the log, in order, with acks from all replicas. It
	// blocks while the client's buffer is full (that is the back-pressure of the partition).
	Append(ctx context.Context, p int32, recs []Record, acks Acks)
	// Bounds are the first offset still there and the offset behind the last.
	Bounds(ctx context.Context, p int32) (start, end int64, err error)
	// Read calls fn for each record with from <= offset < to, in order, and returns when to is
	// reached: it waits for offsets that are not readable yet and skips ones that never will be.
	Read(ctx context.Context, p int32, from, to int64, fn func(LogRecord) error) error
}

// IngestRecord is one record of doppel.ingest: a message that did not come through a door of this
// node's. Its Message is complete but for Token and Reply; an empty Device is a record without key.
type IngestRecord struct {
	Offset  int64
	Message Message
	// Home is the partition of its key, if another program's partitioner put it elsewhere; -1: this one.
	Home int32
}

// Ingest is doppel.ingest: raw messages that wait for their owner.
type Ingest interface {
	// Bounds are the first offset still there and the offset behind the last.
	Bounds(ctx context.Context, p int32) (start, end int64, err error)
	// Follow calls take with the records of p from offset from on, in order, as they come, until ctx
	// ends or take fails. take blocks while the partition is busy, and keeps what it is given. Offsets
	// below the log's start are data loss and an error (rule G5).
	Follow(ctx context.Context, p int32, from int64, take func([]IngestRecord) error) error
	// Append makes m durable in partition p; done is called exactly once, from another goroutine. m's
	// bytes stay untouched until then.
	Append(ctx context.Context, p int32, m *Message, done func(error))
}

// Gateways are the doors of all nodes, and what they hold (rule P2). Safe for concurrent use; cheap.
type Gateways interface {
	// Mark puts a mark now: it is cleared when every gateway has released, or made durable in ingest,
	// all that its broker had sent it by now.
	Mark() uint64
	// Cleared: all marks up to it are cleared.
	Cleared() uint64
	// Settled is false while some gateway is long in clearing: it is gone and not replaced yet.
	Settled() bool
}

// Needs are what a restore of a partition needs: everything below may be removed.
type Needs struct {
	Changelog Cursor
	State     int64 // offset in doppel.state; 0: all of it
	Ingest    int64 // offset in doppel.ingest
}

// Retention bounds the disk of a log that does not do it by itself.
type Retention interface {
	// Needs is told whenever a durable floor has moved. It must not block.
	Needs(p int32, n Needs)
	// Oldest is the cursor at the first record of p's changelog that is kept; false: not known, or
	// nothing was ever removed.
	Oldest(p int32) (Cursor, bool)
}

// DeadLetter is a refused message as it came.
type DeadLetter struct {
	Device      string
	Payload     []byte
	Reason      twin.Reason
	Detail      string // precise: index and field
	SourceTopic string
	ContentType string
	ReceivedAt  int64 // unix nanoseconds
	Node        string
	Attempts    int
}

// DeadLetters is doppel.dlq. done is called exactly once, from another goroutine, when the letter is
// durable or could not be made so. Payload stays untouched until then.
type DeadLetters interface {
	Put(ctx context.Context, d DeadLetter, done func(error))
}

// Transition is an alert transition with its place in the log, the identity of the effect.
type Transition struct {
	Partition int32
	Offset    int64
	Index     int // among the transitions of that record
	Device    string
	Alert     alert.Alert
}

// AlertLog is doppel.alerts. done is called exactly once, from another goroutine.
type AlertLog interface {
	Publish(ctx context.Context, t Transition, done func(error))
}

// Devices are told what is desired of them. payload is for the retained message on their topic; nil: there is
// to be none. done is called exactly once, from another goroutine, when the broker has it or could not be reached.
// Desired must not block; payload stays untouched.
type Devices interface {
	Desired(device string, payload []byte, done func(error))
}

// Watchers is told of released changes. Its methods are called from the partition's goroutine and
// must neither block nor keep what they are given.
type Watchers interface {
	// TwinsWatched is false while nobody watches twins; TwinChanged is then not called.
	TwinsWatched() bool
	TwinChanged(p int32, device string, version uint64)
}

// Cursor is a reader's position in a partition's log: always the three together.
type Cursor struct {
	Next  int64  // next offset to read
	Epoch uint64 // epoch in force
	N     uint64 // last valid count in it
}

// Row is one sample on its way to the time series store.
type Row struct {
	Device    string
	Boot, Seq uint64 // unnumbered: 0 and the twin's applied count
	Time      int64  // unix nanoseconds
	Late      bool
	Readings  []twin.ScoredReading
}

// Rows are the rows of released records From.Next <= offset < To.Next of one partition. The receiver
// owns it and gives it back with Recycle.
type Rows struct {
	Partition int32
	From, To  Cursor
	Samples   []Row
	Alerts    []Transition
	Readings  []twin.ScoredReading // backing array of Samples[i].Readings
	Recycle   func(*Rows)
}

// RowSink is the time series store. Offer never blocks; false: it has no room (or no use) for them,
// the caller recycles them and the store reads them from the changelog later.
type RowSink interface {
	Offer(r *Rows) bool
}
