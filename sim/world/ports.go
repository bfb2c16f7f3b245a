package world

import (
	"context"
	"errors"

	"github.com/doppel-iot/doppel/actors/host"
	"github.com/doppel-iot/doppel/cluster/placement"
)

// letters is doppel.dlq as a process reaches it.
type letters process

// Put implements host.DeadLetters.
func (l *letters) Put(_ context.Context, d host.DeadLetter, done func(error)) {
	p := (*process)(l)
	payload := string(d.Payload)
	p.w.tracef("%s: dead letter %s: %s", p.n.name, d.Reason, d.Detail)
	p.jobs = append(p.jobs, job{func() { p.w.letters[payload] = true }, done})
}

// alerts is doppel.alerts as a process reaches it.
type alerts process

// Publish implements host.AlertLog.
func (a *alerts) Publish(_ context.Context, t host.Transition, done func(error)) {
	(*process)(a).alerts.sessions[t.Partition].send(&flight{transition: &t, done: func(_ int64, err error) { done(err) }})
}

// rows is the time series store. Like one that is busy, it takes none.
type rows process

// Offer implements host.RowSink.
func (r *rows) Offer(batch *host.Rows) bool {
	if p := (*process)(r); !p.dead {
		p.w.shards[batch.Partition].judge.rows(p.n.name, batch)
	}
	return false
}

// retention remembers what the process says it needs.
type retention struct{ p *process }

// Needs implements host.Retention.
func (r retention) Needs(part int32, n host.Needs) {
	s := r.p.w.shards[part]
	s.needs = append(s.needs, needed{r.p.w.now, n})
}

// Oldest implements host.Retention.
func (r retention) Oldest(int32) (host.Cursor, bool) { return host.Cursor{}, false }

type needed struct {
	at int64
	host.Needs
}

// feed is doppel.ingest as a process reads it.
type feed struct{ *port }

// Follow implements host.Ingest.
func (f *feed) Follow(ctx context.Context, part int32, from int64, take func([]host.IngestRecord) error) error {
	p, t := f.p, f.sessions[part].t
	for next := from; ; next++ {
		from := p.w.now
		if p.w.climate.lag > 0 {
			from += p.w.rng.Int64N(int64(p.w.climate.lag))
		}
		ready := func() bool {
			return ctx.Err() != nil || next < t.end() && p.w.now >= from && !p.cut && p.steps.Hungry(part)
		}
		if !p.park(ready) {
			return errProcess
		}
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case next < t.start:
			return errors.New("ingest begins later")
		}
		m := t.recs[next].message
		rec := host.IngestRecord{Offset: next, Home: -1, Message: m.host(t.recs[next].at)}
		if home := placement.Partition([]byte(m.device), int32(len(p.w.shards))); home != part {
			rec.Home = home
		}
		if err := take([]host.IngestRecord{rec}); err != nil {
			return err
		}
	}
}

// Append implements host.Ingest.
func (f *feed) Append(_ context.Context, part int32, m *host.Message, done func(error)) {
	f.p.w.counts.slow++
	f.sessions[part].send(&flight{message: f.p.w.message(m.Device, m.Payload), at: m.ReceivedAt, done: func(_ int64, err error) { done(err) }})
}
