package questdb

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sort"
	"strings"
	"time"

	questdb "github.com/questdb/go-questdb-client/v3"

	"github.com/doppel-iot/doppel/actors/host"
	"github.com/doppel-iot/doppel/actors/twin"
)

// flush sends the rows at hand and moves the cursors behind them (E3). After an error nothing is
// committed and everything is to be sent again.
func (w *Writer) flush(ctx context.Context) error {
	start := time.Now()
	sent, err := w.send(ctx)
	if err != nil {
		return err
	}
	cursors := make(map[int32]host.Cursor, len(w.parts))
	for id, p := range w.parts {
		if p.pos != p.committed {
			cursors[id] = p.pos
		}
	}
	if err := w.cursors.Save(ctx, cursors); err != nil {
		return err
	}
	for id, p := range w.parts {
		p.committed = p.pos
		w.inbox.settle(id, p.pos)
	}
	w.release()
	w.stats.Rows.Add(uint64(sent))
	w.stats.Flushes.Add(1)
	w.recovered()
	if sent > 0 {
		w.cfg.Observe(sent, time.Since(start))
	}
	return nil
}

// last flushes what is at hand when ctx has ended.
func (w *Writer) last(ctx context.Context) error {
	if w.since.IsZero() {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), w.cfg.Timeout)
	defer cancel()
	if err := w.flush(ctx); err != nil {
		w.logger.Warn("questdb did not take the last rows, they wait in the log", "err", err)
	}
	return nil
}

// refusal is an error about a row, not about QuestDB.
type refusal struct{ error }

// Unwrap gives what was wrong.
func (r *refusal) Unwrap() error { return r.error }

// send sends all items but the refused ones. QuestDB takes a request whole or, naming one line, not
// at all; each refusal halves what is sent at once, each success doubles it, so that neither one bad
// row nor a thousand of them cost much more than themselves.
func (w *Writer) send(ctx context.Context) (sent int, err error) {
	size := w.cfg.FlushRows
	for lo := 0; lo < len(w.items); {
		if w.items[lo].rows == nil {
			lo++
			continue
		}
		hi := min(lo+size, len(w.items))
		n, bad, err := w.post(ctx, w.items[lo:hi])
		if err == nil {
			sent, lo, size = sent+n, hi, min(2*size, w.cfg.FlushRows)
			continue
		}
		if r := (*refusal)(nil); !errors.As(err, &r) {
			return sent, err
		}
		if bad < 0 && hi-lo == 1 {
			bad = 0
		}
		if bad >= 0 {
			if err := w.deadLetter(ctx, w.items[lo+bad], err); err != nil {
				return sent, err
			}
			w.items[lo+bad].rows = nil
		}
		size = max(size/2, 1)
	}
	return sent, nil
}

// post sends items in one request. bad is the index of the item that is to blame for a refusal, -1
// if none was named.
func (w *Writer) post(ctx context.Context, items []item) (sent, bad int, err error) {
	s, err := w.lineSender(ctx)
	if err != nil {
		return 0, -1, err
	}
	lines := 0
	w.ends = w.ends[:0]
	for i, it := range items {
		if it.rows != nil {
			n, err := w.write(ctx, s, it)
			if err != nil {
				w.dropSender(ctx)
				return 0, i, err
			}
			lines += n
			sent++
		}
		w.ends = append(w.ends, lines)
	}
	err = s.Flush(ctx)
	if err == nil {
		return sent, -1, nil
	}
	// The transport may still be reading the sender's buffer.
	w.dropSender(ctx)
	he := (*questdb.HttpError)(nil)
	if !errors.As(err, &he) || he.HttpStatus() != http.StatusBadRequest && he.HttpStatus() != http.StatusRequestEntityTooLarge {
		return 0, -1, fmt.Errorf("flush %d rows: %w", sent, err)
	}
	bad = -1
	// Where a request is too large, the line named is only where its patience ended.
	if he.HttpStatus() == http.StatusBadRequest && he.Line > 0 && he.Line <= lines {
		bad = sort.SearchInts(w.ends, he.Line)
	}
	return 0, bad, &refusal{fmt.Errorf("flush %d rows: %w", sent, he)}
}

func (w *Writer) lineSender(ctx context.Context) (questdb.LineSender, error) {
	if w.sender != nil {
		return w.sender, nil
	}
	s, err := w.newSender(ctx)
	if err != nil {
		return nil, err
	}
	w.sender = s
	return s, nil
}

func (w *Writer) newSender(ctx context.Context) (questdb.LineSender, error) {
	opts := []questdb.LineSenderOption{
		questdb.WithHttp(),
		questdb.WithAddress(w.url.Host),
		questdb.WithHttpTransport(w.transport),
		questdb.WithAutoFlushDisabled(),
		questdb.WithRequestTimeout(w.cfg.Timeout),
		questdb.WithRetryTimeout(0), // what failed is read again from the log
		questdb.WithInitBufferSize(1 << 20),
		questdb.WithMaxBufferSize(1 << 30), // items are bounded
	}
	if w.url.Scheme == "https" {
		opts = append(opts, questdb.WithTls())
	}
	if u := w.url.User; u != nil {
		password, _ := u.Password()
		opts = append(opts, questdb.WithBasicAuth(u.Username(), password))
	}
	s, err := questdb.NewLineSender(ctx, opts...)
	if err != nil {
		return nil, fmt.Errorf("questdb sender: %w", err)
	}
	return s, nil
}

func (w *Writer) dropSender(ctx context.Context) {
	if w.sender != nil {
		// With auto flush off, closing sends nothing and fails only when done twice.
		_ = w.sender.Close(ctx)
		w.sender = nil
	}
}

// deadLetter puts the lines of a refused row among the dead letters and waits until they are durable.
func (w *Writer) deadLetter(ctx context.Context, it item, cause error) error {
	s, err := w.newSender(ctx)
	if err != nil {
		return err
	}
	defer s.Close(ctx) //nolint:errcheck // it sends nothing
	d := host.DeadLetter{
		Reason:      twin.QuestDBRefused,
		Detail:      detail(cause),
		ContentType: ContentType,
		Node:        w.cfg.Node,
	}
	if it.sample < 0 {
		d.Device = it.rows.Alerts[it.alert].Device
	} else {
		d.Device = it.rows.Samples[it.sample].Device
	}
	// A row that the sender itself refuses has no lines; what can be said of it is in the detail.
	if _, err := w.write(ctx, s, it); err == nil {
		if m, ok := s.(interface{ Messages() string }); ok {
			d.Payload = []byte(m.Messages())
		}
	}
	d.ReceivedAt = time.Now().UnixNano()
	done := make(chan error, 1)
	w.letters.Put(ctx, d, func(err error) { done <- err })
	select {
	case err = <-done:
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("dead letter of a refused row: %w", err)
	}
	w.stats.Refused.Add(1)
	w.logger.Warn("questdb refused a row", "device_id", d.Device, "detail", d.Detail)
	return nil
}

// ContentType marks dead letters whose payload is lines of InfluxDB line protocol.
const ContentType = "text/x-influx-line-protocol"

// detail is what QuestDB said of the line.
func detail(err error) string {
	he := (*questdb.HttpError)(nil)
	if !errors.As(err, &he) {
		return err.Error()
	}
	msg := he.Message
	if i := strings.LastIndex(msg, "error in line "); i >= 0 {
		_, msg, _ = strings.Cut(msg[i:], ": ")
	}
	return msg
}
