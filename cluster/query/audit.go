package query

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

const (
	// auditPatience is how long an audit waits for partitions that move, so that each of them is audited
	// once; auditPause is between two attempts.
	auditPatience = 3 * time.Second
	auditPause    = 100 * time.Millisecond
)

// audited is what one node found.
type audited struct {
	member
	audit *doppelv1.Audit
	err   error
}

// Audit adds up the accounts of all nodes. A deep one has every partition checked against the log,
// and its rows counted, by the node that serves it; the dead letters are those of all. A node that
// cannot be asked is a difference, and so is a partition that was audited twice; one that nobody
// serves for long is a host.ErrUnavailable.
func (f *Fleet) Audit(ctx context.Context, deep bool) (*doppelv1.Audit, error) {
	for deadline := time.Now().Add(auditPatience); ; {
		a, err := f.audit(ctx, deep)
		if err == nil || !notServed(err) || time.Now().After(deadline) {
			return a, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(auditPause):
		}
	}
}

func (f *Fleet) audit(ctx context.Context, deep bool) (*doppelv1.Audit, error) {
	answers := f.ask(ctx) // who does not answer this does not answer at all
	parts := make([]audited, len(answers))
	var wg sync.WaitGroup
	for i, a := range answers {
		wg.Go(func() {
			parts[i].member = a.member
			if parts[i].err = a.err; a.err == nil {
				parts[i].audit, parts[i].err = f.auditOf(ctx, a.member, deep)
			}
		})
	}
	wg.Wait()
	sum, err := f.merge(ctx, parts)
	if err != nil || !deep || f.cfg.Letters == nil || sum.GetLog() == nil {
		return sum, err
	}
	return sum, f.countLetters(ctx, sum)
}

// auditOf asks one node. How long a deep audit takes nobody knows: that the node is there, the
// connection says.
func (f *Fleet) auditOf(ctx context.Context, m member, deep bool) (*doppelv1.Audit, error) {
	if m.self {
		return f.cfg.Part.Audit(ctx, deep)
	}
	c, err := f.cfg.Reader.client(m.GetAddress())
	if err != nil {
		return nil, err
	}
	resp, err := c.ReadAudit(ctx, &doppelv1.ReadAuditRequest{Deep: deep})
	if err != nil {
		err, _ = fromStatus(err)
	}
	return resp.GetAudit(), err
}

func (f *Fleet) merge(ctx context.Context, parts []audited) (*doppelv1.Audit, error) {
	sum := &doppelv1.Audit{Balanced: true, Totals: &doppelv1.Counters{}, Twins: &doppelv1.Counters{}}
	owners := make(map[int32]string)
	deaf := false
	for _, part := range parts {
		switch err := part.err; {
		case err == nil:
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case part.self || notServed(err):
			return nil, err
		default:
			deaf = true
			differs(sum, "node %s could not be asked: %v", part.GetId(), err)
			continue
		}
		a := part.audit
		if !a.GetBalanced() {
			differs(sum, "node %s: %s", part.GetId(), a.GetDifference())
		}
		sum.Received += a.GetReceived()
		sum.InFlight += a.GetInFlight()
		addCounters(sum.GetTotals(), a.GetTotals())
		addCounters(sum.GetTwins(), a.GetTwins())
		for _, p := range a.GetPartitions() {
			if other, twice := owners[p.GetId()]; twice {
				differs(sum, "partition %d is served by %s and %s", p.GetId(), other, part.GetId())
				continue
			}
			owners[p.GetId()] = part.GetId()
			sum.Partitions = append(sum.Partitions, p)
		}
		addLog(sum, a.GetLog())
		addRows(sum, a.GetRows())
	}
	var nobody []int32
	for p := range f.cfg.Reader.cfg.Partitions {
		if _, served := owners[p]; !served {
			nobody = append(nobody, p)
		}
	}
	if len(nobody) > 0 && !deaf {
		return nil, unavailable(nobody, "")
	}
	slices.SortFunc(sum.GetPartitions(), func(a, b *doppelv1.PartitionAudit) int { return cmp.Compare(a.GetId(), b.GetId()) })
	return sum, nil
}

// countLetters checks that no record of a refused sample is without its dead letter, which comes first
// (G3): so they are counted behind the records.
func (f *Fleet) countLetters(ctx context.Context, sum *doppelv1.Audit) error {
	start, end, err := f.cfg.Letters.Bounds(ctx)
	if err != nil {
		return fmt.Errorf("dead letters: %w", err)
	}
	found := uint64(0)
	err = f.cfg.Letters.Scan(ctx, start, end, func(*doppelv1.DeadLetter) error {
		found++
		return nil
	})
	if err != nil {
		return fmt.Errorf("dead letters: %w", err)
	}
	sum.Log.DeadLetters = uint64(start) + found // with those that expired
	if sum.GetLog().GetRefused() > sum.GetLog().GetDeadLetters() {
		differs(sum, "doppel.dlq: %d letters, and %d records in the log of samples that went there", sum.GetLog().GetDeadLetters(), sum.GetLog().GetRefused())
	}
	return nil
}

// differs keeps the first difference.
func differs(a *doppelv1.Audit, format string, args ...any) {
	if a.GetBalanced() {
		a.Balanced, a.Difference = false, fmt.Sprintf(format, args...)
	}
}

func addCounters(sum, c *doppelv1.Counters) {
	sum.Applied += c.GetApplied()
	sum.Late += c.GetLate()
	sum.Duplicate += c.GetDuplicate()
	sum.DeadLettered += c.GetDeadLettered()
	sum.Held += c.GetHeld()
	sum.Gaps += c.GetGaps()
	sum.Missing += c.GetMissing()
}

func addLog(sum *doppelv1.Audit, l *doppelv1.LogAudit) {
	if l == nil {
		return
	}
	if sum.GetLog() == nil {
		sum.Log = &doppelv1.LogAudit{Whole: true}
	}
	s := sum.GetLog()
	s.Records += l.GetRecords()
	s.Void += l.GetVoid()
	s.Uncovered += l.GetUncovered()
	s.Refused += l.GetRefused()
	s.Whole = s.GetWhole() && l.GetWhole()
}

func addRows(sum *doppelv1.Audit, r *doppelv1.RowsAudit) {
	if r == nil {
		return
	}
	if sum.GetRows() == nil {
		sum.Rows = &doppelv1.RowsAudit{}
	}
	s := sum.GetRows()
	s.Rows += r.GetRows()
	s.Samples += r.GetSamples()
	s.Lag += r.GetLag()
	s.Refused += r.GetRefused()
}
