package node

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/doppel-iot/doppel/actors/host"
	"github.com/doppel-iot/doppel/actors/twin"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// auditedRows is QuestDB as an audit needs it.
type auditedRows interface {
	Lag() map[int32]int64
	Cursor(p int32) (next int64, ok bool)
	Rows(ctx context.Context, fn func(device string, rows uint64)) error
}

const (
	// settlePatience is how long an audit waits for samples that are between two counters, rowsPatience
	// for QuestDB to catch up and show it.
	settlePatience = 3 * time.Second
	rowsPatience   = 30 * time.Second
	auditPause     = 100 * time.Millisecond
)

// Audit implements query.Part: the equation of contract section 9 over this node since its start, the
// states of its partitions, and, if deep, all of it against log and QuestDB. Dead letters are nobody's
// own and are counted once for all nodes.
func (f *fleet) Audit(ctx context.Context, deep bool) (*doppelv1.Audit, error) {
	a := &audit{Audit: &doppelv1.Audit{Balanced: true}, fleet: f}
	if err := a.accounts(ctx); err != nil {
		return nil, err
	}
	if !deep {
		return a.Audit, nil
	}
	if err := a.log(ctx); err != nil {
		return nil, err
	}
	if f.rows != nil {
		if err := a.letters(ctx); err != nil {
			return nil, err
		}
		if err := a.rows(ctx); err != nil {
			return nil, err
		}
	}
	return a.Audit, nil
}

// audit is one on its way. Only the first difference is kept.
type audit struct {
	*doppelv1.Audit
	fleet   *fleet
	checks  []*host.Check
	refused map[string]uint64 // samples that QuestDB refused, by device
}

func (a *audit) differs(format string, args ...any) {
	if a.GetBalanced() {
		a.Balanced, a.Difference = false, fmt.Sprintf(format, args...)
	}
}

// accounts checks the counters of the node. In flight is what is received and not settled, so the
// equation holds by itself while that is not negative; what partitions and twins say of it while
// nothing moves must be the same.
func (a *audit) accounts(ctx context.Context) error {
	st := a.fleet.host.Stats()
	for deadline := time.Now().Add(settlePatience); ; {
		before := st.Accounts()
		var sum twin.Counters
		var unsettled int64
		a.Partitions = a.Partitions[:0]
		for _, v := range a.fleet.own() {
			s, err := a.fleet.host.Standing(ctx, v.ID)
			if err != nil {
				return fmt.Errorf("partition %d: %w", v.ID, err)
			}
			a.Partitions = append(a.Partitions, s.Audit)
			sum = plus(sum, s.Counters)
			unsettled += int64(s.Unsettled)
		}
		after := st.Accounts()
		a.Received, a.InFlight = after.Received, uint64(max(0, after.InFlight))
		a.Totals = &doppelv1.Counters{
			Applied: after.Applied, Late: after.Late, Duplicate: after.Duplicate, DeadLettered: after.DeadLettered,
			Held: uint64(max(0, after.Held)), Gaps: st.Gaps.Load(),
		}
		a.Twins = counters(&sum)
		what := ""
		switch moving := before != after; {
		case after.InFlight < 0:
			what = fmt.Sprintf("%d more samples settled than received", -after.InFlight)
		case moving:
		case after.InFlight != unsettled:
			what = fmt.Sprintf("%d samples in flight, in its partitions %d", after.InFlight, unsettled)
		case after.Held != int64(sum.Held):
			what = fmt.Sprintf("%d samples held, in its twins %d", after.Held, sum.Held)
		}
		if what == "" {
			return nil
		}
		if time.Now().After(deadline) {
			a.differs("%s", what)
			return nil
		}
		if err := pause(ctx); err != nil {
			return err
		}
	}
}

// log checks every twin against a fold of the whole log.
func (a *audit) log(ctx context.Context) error {
	l := &doppelv1.LogAudit{Whole: true}
	var sum twin.Counters
	a.Partitions = a.Partitions[:0]
	for _, v := range a.fleet.own() {
		c, err := a.fleet.host.Check(ctx, v.ID)
		if err != nil {
			return fmt.Errorf("partition %d: %w", v.ID, err)
		}
		if c.Difference != "" {
			a.differs("partition %d: %s", v.ID, c.Difference)
		}
		l.Records += c.Fold.Records
		l.Void += c.Fold.Void
		l.Refused += c.Fold.Refused
		l.Uncovered += c.Uncovered
		l.Whole = l.GetWhole() && c.From == 0
		sum = plus(sum, c.Counters)
		a.Partitions = append(a.Partitions, c.Audit)
		a.checks = append(a.checks, c)
	}
	a.Twins, a.Log = counters(&sum), l
	return nil
}

// letters finds the samples that QuestDB refused: they have no row.
func (a *audit) letters(ctx context.Context) error {
	start, end, err := a.fleet.letters.Bounds(ctx)
	if err != nil {
		return fmt.Errorf("dead letters: %w", err)
	}
	a.refused = make(map[string]uint64)
	err = a.fleet.letters.Scan(ctx, start, end, func(d *doppelv1.DeadLetter) error {
		if d.GetReason() == string(twin.QuestDBRefused) {
			a.refused[d.GetDevice()]++
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("dead letters: %w", err)
	}
	return nil
}

// rows checks that every sample applied or late has its row, and nothing else has one. QuestDB may be
// behind; then only too many rows are a difference.
func (a *audit) rows(ctx context.Context) error {
	store := a.fleet.rows
	r := &doppelv1.RowsAudit{}
	a.Rows = r
	lag := store.Lag()
	for _, c := range a.checks {
		r.Lag += lag[c.Audit.GetId()]
	}
	deadline := time.Now().Add(rowsPatience)
	for !a.caughtUp() && time.Now().Before(deadline) {
		if err := pause(ctx); err != nil {
			return err
		}
	}
	want := make(map[string]uint64)
	for _, c := range a.checks {
		for device, samples := range c.Rows {
			want[device] = samples
			r.Samples += samples
		}
	}
	for device, n := range a.refused {
		if samples, ours := want[device]; ours {
			want[device] = samples - min(samples, n)
			r.Refused += n
		}
	}
	complete := a.caughtUp()
	deadline = time.Now().Add(rowsPatience)
	for {
		got := make(map[string]uint64, len(want))
		r.Rows = 0
		err := store.Rows(ctx, func(device string, rows uint64) {
			if _, ours := want[device]; ours {
				got[device] = rows
				r.Rows += rows
			}
		})
		if err != nil {
			a.differs("rows could not be counted: %v", err)
			return nil // the result of the audit, not a failure of it
		}
		short := ""
		if complete {
			short = missing(want, got)
		}
		if short == "" {
			return a.surplus(ctx, got)
		}
		if time.Now().After(deadline) {
			a.differs("QuestDB: device %s has %d rows for %d samples", short, got[short], want[short])
			return nil
		}
		if err := pause(ctx); err != nil {
			return err
		}
	}
}

// caughtUp says whether QuestDB has got all rows up to where the log was checked.
func (a *audit) caughtUp() bool {
	for _, c := range a.checks {
		if next, ok := a.fleet.rows.Cursor(c.Audit.GetId()); !ok || next < int64(c.Audit.GetNextOffset()) {
			return false
		}
	}
	return true
}

// missing finds the first device with fewer rows than samples.
func missing(want, got map[string]uint64) (device string) {
	for d, n := range want {
		if got[d] < n && (device == "" || d < device) {
			device = d
		}
	}
	return device
}

// surplus looks for a device with more rows than it has samples by now: the count is older than that.
func (a *audit) surplus(ctx context.Context, got map[string]uint64) error {
	first, samples := "", uint64(0)
	for _, c := range a.checks {
		var ids []string
		for device, n := range c.Rows {
			if got[device] > n {
				ids = append(ids, device)
			}
		}
		for some := range slices.Chunk(ids, 1000) {
			twins, err := a.fleet.host.Twins(ctx, c.Audit.GetId(), some)
			if err != nil {
				return fmt.Errorf("partition %d: %w", c.Audit.GetId(), err)
			}
			for _, t := range twins {
				n := t.GetCounters().GetApplied() + t.GetCounters().GetLate() + c.Former[t.GetId()]
				if got[t.GetId()] > n && (first == "" || t.GetId() < first) {
					first, samples = t.GetId(), n
				}
			}
		}
	}
	if first != "" {
		a.differs("QuestDB: device %s has %d rows for %d samples", first, got[first], samples)
	}
	return nil
}

func pause(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(auditPause):
		return nil
	}
}

func plus(a, b twin.Counters) twin.Counters {
	return twin.Counters{
		Applied: a.Applied + b.Applied, Late: a.Late + b.Late, Duplicate: a.Duplicate + b.Duplicate, DeadLettered: a.DeadLettered + b.DeadLettered,
		Held: a.Held + b.Held, Gaps: a.Gaps + b.Gaps, Missing: a.Missing + b.Missing,
	}
}

func counters(c *twin.Counters) *doppelv1.Counters {
	return &doppelv1.Counters{
		Applied: c.Applied, Late: c.Late, Duplicate: c.Duplicate, DeadLettered: c.DeadLettered, Held: c.Held, Gaps: c.Gaps, Missing: c.Missing,
	}
}
