package questdb

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"

	questdb "github.com/questdb/go-questdb-client/v3"

	"github.com/doppel-iot/doppel/actors/codec"
	"github.com/doppel-iot/doppel/actors/host"
)

// Changelog is where rows are read again that were not taken the first time.
type Changelog interface {
	Bounds(ctx context.Context, p int32) (start, end int64, err error)
	Read(ctx context.Context, p int32, from, to int64, fn func(host.LogRecord) error) error
}

// Writer writes the rows of this node's partitions. It implements host.RowSink.
type Writer struct {
	cfg     Config
	log     Changelog
	cursors CursorStore
	letters host.DeadLetters
	logger  *slog.Logger

	inbox *inbox
	stats Stats
	fail  atomic.Pointer[error]

	// Everything below belongs to the goroutine of Run.
	url       *url.URL
	transport *http.Transport
	db        *sqlClient
	sender    questdb.LineSender // nil: make one
	columns   *columns
	stored    map[int32]host.Cursor // as they were at the start
	parts     map[int32]*partition

	away   bool // the last session did not even begin
	taken  []*host.Rows
	held   []*host.Rows // those of items
	items  []item       // rows to flush
	values int          // readings in items
	since  time.Time    // when the oldest of what is not committed came; zero: nothing
	ends   []int        // lines up to and including each item of a request

	events codec.EventDecoder
	event  codec.Event
	spare  []*host.Rows
}

// Stats counts since the start.
type Stats struct {
	Rows    atomic.Uint64 // samples and alert transitions QuestDB has taken
	Reread  atomic.Uint64 // samples read back from the log
	Refused atomic.Uint64 // rows QuestDB refused, now dead letters
	Void    atomic.Uint64 // records that do not count
	Lost    atomic.Uint64 // offsets that retention removed, or cut off from their Claim, before QuestDB had their rows
	Flushes atomic.Uint64
}

// New makes a Writer; Run starts it. letters takes the rows QuestDB refuses.
func New(cfg Config, log Changelog, cursors CursorStore, letters host.DeadLetters, logger *slog.Logger) (*Writer, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("questdb: %w", err)
	}
	cfg = cfg.withDefaults()
	u, err := url.Parse(cfg.URL)
	if err != nil {
		return nil, fmt.Errorf("questdb url: %w", err)
	}
	transport := newTransport(cfg.Timeout, cfg.TLS)
	return &Writer{
		cfg: cfg, log: log, cursors: cursors, letters: letters, logger: logger,
		inbox: newInbox(cfg.QueueRows, cfg.QueueBytes, cfg.Shared),
		url:   u, transport: transport, db: newSQLClient(u, transport, cfg.Timeout),
		parts: map[int32]*partition{},
	}, nil
}

// newTransport connects within timeout; secure, unless nil, is asked for each encrypted connection.
func newTransport(timeout time.Duration, secure func() *tls.Config) *http.Transport {
	t := &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         (&net.Dialer{Timeout: timeout}).DialContext,
		TLSHandshakeTimeout: timeout,
		IdleConnTimeout:     2 * time.Minute,
	}
	if secure != nil {
		t.DialTLSContext = func(ctx context.Context, network, address string) (net.Conn, error) {
			d := tls.Dialer{NetDialer: &net.Dialer{Timeout: timeout}, Config: secure()}
			return d.DialContext(ctx, network, address)
		}
	}
	return t
}

// Offer implements host.RowSink.
func (w *Writer) Offer(r *host.Rows) bool { return w.inbox.offer(r) }

// Cursor is the first offset of partition p's log whose rows QuestDB may lack: retention should not
// pass it. ok is false while that is not known; nothing should be removed then.
func (w *Writer) Cursor(p int32) (next int64, ok bool) {
	c, ok := w.inbox.settled(p)
	return c.Next, ok
}

// Settled is the same as a cursor that a reader can start at.
func (w *Writer) Settled(p int32) (host.Cursor, bool) { return w.inbox.settled(p) }

// Lag is the number of records released and not yet in QuestDB, by partition.
func (w *Writer) Lag() map[int32]int64 { return w.inbox.lag() }

// LagRecords is the sum of Lag.
func (w *Writer) LagRecords() int64 {
	var sum int64
	for _, n := range w.inbox.lag() {
		sum += n
	}
	return sum
}

// Stats are the counters.
func (w *Writer) Stats() *Stats { return &w.stats }

// Err is why QuestDB gets no rows at the moment, nil if it does.
func (w *Writer) Err() error {
	if err := w.fail.Load(); err != nil {
		return *err
	}
	return nil
}

// Run writes until ctx ends; then it flushes what was taken and returns nil. Whatever fails meanwhile
// is tried again, with growing pauses.
func (w *Writer) Run(ctx context.Context) error {
	defer w.transport.CloseIdleConnections()
	defer w.dropSender(ctx)
	if !w.cfg.Shared {
		w.load(ctx)
	}
	pause := w.cfg.RetryMin
	for ctx.Err() == nil {
		flushes := w.stats.Flushes.Load()
		err := w.session(ctx)
		w.inbox.setOpen(false)
		w.rewind()
		if err == nil || ctx.Err() != nil {
			break
		}
		if w.stats.Flushes.Load() != flushes {
			pause = w.cfg.RetryMin
		}
		if w.fail.Swap(&err) == nil {
			w.logger.Warn("questdb takes no rows, they wait in the log", "err", err)
		} else {
			w.logger.Debug("questdb still takes no rows", "err", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause/2 + rand.N(pause)):
		}
		pause = min(2*pause, w.cfg.RetryMax)
	}
	return nil
}

// load finds the cursors of a store that is ours alone.
func (w *Writer) load(ctx context.Context) {
	stored, err := w.cursors.Load(ctx)
	if err != nil {
		w.logger.Warn("questdb cursors are lost, starting with the log", "err", err)
	}
	w.stored = stored
	for id, c := range stored {
		w.inbox.settle(id, c)
	}
}

// session takes rows until something fails or ctx ends.
func (w *Writer) session(ctx context.Context) error {
	if err := w.connect(ctx); err != nil {
		w.away = true
		return err
	}
	if w.away {
		w.away = false
		w.recovered()
	}
	w.inbox.setOpen(true)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		err := w.takeIn(ctx)
		if ctx.Err() != nil {
			return w.last(ctx)
		}
		if err != nil {
			return err
		}
		more, err := w.catchUp(ctx)
		if err != nil {
			return err
		}
		if !w.since.IsZero() && (w.full() || time.Since(w.since) >= w.cfg.FlushInterval) {
			if err := w.flush(ctx); err != nil {
				return err
			}
		}
		if more {
			continue
		}
		w.rest(ctx, timer)
	}
}

// takeEvery is how often rows are taken in at most, unless there are many: a partition offers some in every
// turn, and each would wake the writer.
const takeEvery = 50 * time.Millisecond

// rest waits until there is something to do.
func (w *Writer) rest(ctx context.Context, timer *time.Timer) {
	due := w.cfg.FlushInterval
	if !w.since.IsZero() {
		due -= time.Since(w.since)
	}
	due = max(due, 0)
	first := min(due, takeEvery)
	timer.Reset(first)
	select {
	case <-ctx.Done():
		return
	case <-w.inbox.press:
		return
	case <-timer.C:
	}
	timer.Reset(due - first)
	select {
	case <-ctx.Done():
	case <-w.inbox.wake:
	case <-timer.C:
	}
}

// recovered notes that rows get through again.
func (w *Writer) recovered() {
	if w.fail.Swap(nil) != nil {
		w.logger.Info("questdb takes rows again")
	}
}

// connect brings the tables and what is known of them up to date: QuestDB may have been replaced
// while it was away.
func (w *Writer) connect(ctx context.Context) error {
	created, err := w.ensureSchema(ctx)
	if err != nil {
		return err
	}
	if w.cfg.Shared {
		w.beginAnew()
	} else if created && (len(w.stored) > 0 || len(w.parts) > 0) {
		w.logger.Warn("questdb lost its tables, writing the rows again from the start of the log")
		for id := range w.parts {
			w.inbox.missedTo(id, toEnd)
		}
		clear(w.parts)
		w.stored = nil
		w.inbox.unsettle()
	}
	if err := w.resume(ctx); err != nil {
		return err
	}
	return w.loadColumns(ctx)
}

// takeIn takes what the inbox has: rows that continue their partition as they are, others by noting
// how far the partition must be read.
func (w *Writer) takeIn(ctx context.Context) error {
	missed := map[int32]int64{}
	var moved moves
	w.taken, moved = w.inbox.take(w.taken, func(p int32, end int64) { missed[p] = end })
	if err := w.move(ctx, moved); err != nil {
		w.giveMissed(missed)
		w.give(w.taken)
		return err
	}
	for id, end := range missed {
		p, err := w.partition(ctx, id)
		if err == nil {
			err = w.extend(ctx, p, end)
		}
		if err != nil {
			w.giveMissed(missed)
			w.give(w.taken)
			return err
		}
		w.inbox.extend(id, p.target)
	}
	for i, r := range w.taken {
		if !w.inbox.owns(r.Partition) {
			r.Recycle(r)
			continue
		}
		p, err := w.partition(ctx, r.Partition)
		if err != nil {
			w.give(w.taken[i:])
			return err
		}
		switch {
		case r.To.Next <= p.pos.Next:
			r.Recycle(r)
		case r.From.Next > p.pos.Next:
			p.target = max(p.target, r.To.Next)
			r.Recycle(r)
		default:
			w.hold(p, r)
		}
	}
	return nil
}

// give gives rows back that are to be read again.
func (w *Writer) give(rows []*host.Rows) {
	for _, r := range rows {
		w.inbox.missedTo(r.Partition, r.To.Next)
		r.Recycle(r)
	}
}

// giveMissed notes again what must be read.
func (w *Writer) giveMissed(missed map[int32]int64) {
	for id, end := range missed {
		w.inbox.missedTo(id, end)
	}
}

// hold adds rows to the next flush. They continue p.
func (w *Writer) hold(p *partition, r *host.Rows) {
	if w.since.IsZero() {
		w.since = time.Now()
	}
	p.pos = r.To
	p.target = max(p.target, r.To.Next)
	w.held = append(w.held, r)
	for i := range r.Samples {
		w.items = append(w.items, item{rows: r, sample: i})
		w.values += len(r.Samples[i].Readings)
	}
	for i := range r.Alerts {
		w.items = append(w.items, item{rows: r, sample: -1, alert: i})
	}
}

func (w *Writer) full() bool {
	return len(w.items) >= w.cfg.FlushRows || w.values >= valuesPerRow*w.cfg.FlushRows
}

// rewind forgets what was not committed; it is read from the log again.
func (w *Writer) rewind() {
	for _, p := range w.parts {
		p.pos = p.committed
	}
	w.release()
}

// release gives the rows back.
func (w *Writer) release() {
	for i, r := range w.held {
		r.Recycle(r)
		w.held[i] = nil
	}
	clear(w.items)
	w.held, w.items, w.values, w.since = w.held[:0], w.items[:0], 0, time.Time{}
}
