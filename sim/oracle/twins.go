package oracle

import (
	"context"
	"fmt"
	"time"

	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
	"github.com/doppel-iot/doppel/sim/device"
)

// batchSize is how many twins are asked for at once.
const batchSize = 500

// Device is what the fleet knows of one device after a run.
type Device struct {
	ID      string
	Boot    uint64
	Sum     device.Sum // of everything taken; its Samples are those of this run
	Labels  []device.Label
	Unacked []uint64 // numbers never acknowledged
	Swapped uint64   // samples sent behind a later one on purpose
}

// base is what a twin held before the run.
type base struct {
	digest, set   uint64
	applied, late uint64
}

// fetch reads the twins of ids; missing ones are absent.
func fetch(ctx context.Context, client doppelv1.TwinServiceClient, ids []string) (map[string]*doppelv1.Twin, error) {
	twins := make(map[string]*doppelv1.Twin, len(ids))
	for len(ids) > 0 {
		n := min(len(ids), batchSize)
		r, err := client.BatchGetTwins(ctx, &doppelv1.BatchGetTwinsRequest{Ids: ids[:n]})
		if err != nil {
			return nil, fmt.Errorf("batch get twins: %w", err)
		}
		for _, t := range r.GetTwins() {
			twins[t.GetId()] = t
		}
		ids = ids[n:]
	}
	return twins, nil
}

func basesOf(twins map[string]*doppelv1.Twin) map[string]base {
	bases := make(map[string]base, len(twins))
	for id, t := range twins {
		bases[id] = base{
			digest: t.GetDigest(), set: t.GetSetDigest(),
			applied: t.GetCounters().GetApplied(), late: t.GetCounters().GetLate(),
		}
	}
	return bases
}

// settledTwins polls until every twin has taken what its device sent and holds nothing back, or
// limit has passed, and gives the last state seen.
func settledTwins(ctx context.Context, client doppelv1.TwinServiceClient, devices []Device, bases map[string]base, limit time.Duration) (map[string]*doppelv1.Twin, error) {
	deadline := time.Now().Add(limit)
	all := make(map[string]*doppelv1.Twin, len(devices))
	open := devices
	for {
		ids := make([]string, len(open))
		for i, d := range open {
			ids[i] = d.ID
		}
		twins, err := fetch(ctx, client, ids)
		if err != nil {
			return nil, err
		}
		var unsettled []Device
		for _, d := range open {
			t := twins[d.ID]
			if t != nil {
				all[d.ID] = t
			}
			if !settled(d, bases[d.ID], t) {
				unsettled = append(unsettled, d)
			}
		}
		if open = unsettled; len(open) == 0 || time.Now().After(deadline) {
			return all, nil
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(250 * time.Millisecond):
		}
	}
}

func settled(d Device, b base, t *doppelv1.Twin) bool {
	c := t.GetCounters()
	return c.GetApplied()+c.GetLate() >= b.applied+b.late+d.Sum.Samples && c.GetHeld() == 0
}

// judgeTwins compares twins with what their devices sent.
func judgeTwins(devices []Device, bases map[string]base, twins map[string]*doppelv1.Twin) *account {
	a := &account{source: "twin"}
	for _, d := range devices {
		judgeTwin(a, d, bases[d.ID], twins[d.ID])
	}
	return a
}

// lateShare is one in how many swapped samples may be late on a loaded machine, where two messages
// can reach a twin further apart than it waits. One that does not wait at all has them all late.
const lateShare = 20

// judgeLate is how late samples are judged where the log cannot be asked how long the twin waited.
func judgeLate(a *account, devices []Device) {
	swapped := uint64(0)
	for _, d := range devices {
		swapped += d.Swapped
	}
	if excused := swapped / lateShare; a.late > max(excused, 1) {
		a.add(Finding{Reordered, "", a.late, fmt.Sprintf("%d of %d swapped samples late: twins do not wait for them", a.late, swapped)})
	}
}

func judgeTwin(a *account, d Device, b base, t *doppelv1.Twin) {
	sent, unacked := d.Sum.Samples, uint64(len(d.Unacked))
	if t == nil {
		if sent > unacked {
			a.add(Finding{Lost, d.ID, sent - unacked, fmt.Sprintf("no such twin, %d samples acknowledged", sent-unacked)})
		}
		return
	}
	c := t.GetCounters()
	late := c.GetLate() - b.late
	got := c.GetApplied() + c.GetLate() - b.applied - b.late
	if got < sent-unacked {
		a.add(Finding{Lost, d.ID, sent - unacked - got, fmt.Sprintf(
			"%d samples acknowledged, %d taken (applied %d, late %d, held %d, dead-lettered %d)",
			sent-unacked, got, c.GetApplied(), c.GetLate(), c.GetHeld(), c.GetDeadLettered())})
	}
	if got > sent {
		a.add(Finding{Duplicated, d.ID, got - sent, fmt.Sprintf("%d samples sent, %d taken", sent, got)})
	}
	a.late += late
	if late > d.Swapped {
		a.add(Finding{Reordered, d.ID, late - d.Swapped, fmt.Sprintf("%d samples late, though only %d were swapped", late, d.Swapped)})
	}
	if unacked > 0 {
		return // whether they took effect is not known, and so no digest either
	}
	if want := d.Sum.Set; t.GetSetDigest() != want {
		a.add(Finding{Mismatch, d.ID, 1, fmt.Sprintf("set_digest %016x, want %016x", t.GetSetDigest(), want)})
		return
	}
	if want := d.Sum.Digest; late == 0 && t.GetDigest() != want {
		a.add(Finding{Mismatch, d.ID, 1, fmt.Sprintf("digest %016x, want %016x: the order differs", t.GetDigest(), want)})
	}
}
