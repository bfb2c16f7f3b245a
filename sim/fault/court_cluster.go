package fault

import (
	"context"
	"fmt"
	"time"

	"github.com/doppel-iot/doppel/sim/fleet"
	"github.com/doppel-iot/doppel/sim/oracle"
)

// clusterCourt judges a cluster that has come to rest.
type clusterCourt struct {
	rig      *Rig
	judge    *oracle.Oracle
	watch    *stopwatch
	audience *audience
	nodes    []*live // in the order of the rig's
	verdict  *verdict
	outcome  *Outcome
	devices  []oracle.Device
	boot     uint64
	progress *fleet.Progress
	say      func(what string)
}

const (
	// clusterRest is how long samples may be held: as long as a partition is unsettled, and some.
	clusterRest = 90 * time.Second
	// heardLimit is how long the last transitions may take to subscribers.
	heardLimit = 15 * time.Second
)

// sit gathers the evidence and judges it. Its error is evidence that could not be had.
func (c *clusterCourt) sit(ctx context.Context) error {
	defer func() {
		for _, n := range c.rig.nodes {
			for _, complaint := range n.complaints() {
				c.verdict.add("%s: %s", n.name, complaint)
			}
		}
	}()
	if !c.rig.Ready(ctx) {
		return fmt.Errorf("the nodes do not get ready again: %s", c.rig.LogTail())
	}
	if err := c.rest(ctx); err != nil {
		return err
	}
	c.say("at rest")
	c.oracle(ctx)
	c.say("oracle heard")
	folds, err := c.log(ctx)
	if err != nil {
		return err
	}
	if err := c.alerts(ctx, folds); err != nil {
		return err
	}
	c.say("log and alerts read")
	for i, n := range c.nodes {
		if err := c.node(ctx, c.rig.nodes[i].name, n, folds); err != nil {
			return err
		}
	}
	return nil
}

// rest waits until no node holds anything or has anything in flight. What does not come to rest is said,
// and judged all the same.
func (c *clusterCourt) rest(ctx context.Context) error {
	var err error
	busy := ""
	if !await(ctx, clusterRest, func() bool {
		busy = ""
		for i, n := range c.nodes {
			var m map[string]float64
			if m, err = n.metrics(ctx); err != nil {
				return false
			}
			if held, flying := m["doppel_samples_held"], m["doppel_samples_in_flight"]; held != 0 || flying != 0 {
				busy = fmt.Sprintf("%s has %v samples held and %v in flight", c.rig.nodes[i].name, held, flying)
				return false
			}
		}
		return true
	}) && busy != "" {
		c.verdict.add("at rest for %v: %s", clusterRest, busy)
	}
	return err
}

// oracle compares twins and log with what the devices sent.
func (c *clusterCourt) oracle(ctx context.Context) {
	r := &oracle.Report{Sent: c.progress.Sent, Acked: c.progress.Acked}
	c.judge.Check(ctx, r, c.devices, c.progress)
	for _, f := range r.Findings {
		c.verdict.add("%s", f)
	}
	unacked := 0
	for _, d := range c.devices {
		unacked += len(d.Unacked)
	}
	if unacked > 0 || c.progress.Acked == 0 {
		c.verdict.add("%d samples acknowledged, %d never within %v", c.progress.Acked, unacked, settle)
	}
	c.outcome.Late, c.outcome.Lost = r.Late, r.Lost
}

// log folds the changelog up to where the cluster says it stands, and compares: replay, states, and each
// sample once.
func (c *clusterCourt) log(ctx context.Context) (map[int32]*fold, error) {
	audit, err := c.nodes[0].audit(ctx, false)
	if err != nil {
		return nil, err
	}
	ends := make(map[int32]int64)
	for _, p := range audit.GetPartitions() {
		ends[p.GetId()] = int64(p.GetNextOffset())
	}
	telemetry, err := readTopic(ctx, c.rig.Kafka, "doppel.telemetry")
	if err != nil {
		return nil, err
	}
	ingest, err := readTopic(ctx, c.rig.Kafka, "doppel.ingest")
	if err != nil {
		return nil, err
	}
	folds, err := foldLog(telemetry, ends)
	if err != nil {
		return nil, err
	}
	for p, f := range folds {
		c.outcome.Records += len(telemetry[p])
		c.outcome.Void += f.void
		c.outcome.Claims += f.claims
		c.outcome.Transitions += len(f.transitions)
		c.outcome.Raw += len(ingest[p])
	}
	c.verdict.replay(folds)
	c.verdict.hashes(folds, audit.GetPartitions())
	told := c.watch.chronicle(c.boot, telemetry, ingest)
	want := make(map[string]uint64)
	for _, d := range c.devices {
		want[d.ID] = d.Sum.Samples
	}
	c.verdict.once(told.devices, want)
	c.outcome.Waits = told.waits(c.rig.happened)
	return folds, nil
}

// alerts judges doppel.alerts, and what the subscribers heard.
func (c *clusterCourt) alerts(ctx context.Context, folds map[int32]*fold) error {
	inner := &court{rig: c.rig, verdict: c.verdict, outcome: c.outcome}
	if err := inner.alerts(ctx, folds); err != nil {
		return err
	}
	for _, s := range c.audience.members {
		await(ctx, heardLimit, func() bool { h := s.so(); return h.complete(folds) })
	}
	heards := make([]heard, len(c.audience.members))
	for i, s := range c.audience.members {
		heards[i] = s.so()
		c.outcome.Resumed += heards[i].again
	}
	// Time goes on, and with it alerts of silent devices, which they may have heard already.
	log, err := readTopic(ctx, c.rig.Kafka, "doppel.telemetry")
	if err != nil {
		return err
	}
	all, err := foldLog(log, nil)
	if err != nil {
		return err
	}
	if c.outcome.Transitions == 0 {
		c.verdict.add("no alert ever fired: this round says nothing of subscribers")
	}
	for i, s := range c.audience.members {
		c.verdict.audience(s.name, &heards[i], folds, all)
	}
	return nil
}

// node judges what one node answers for all.
func (c *clusterCourt) node(ctx context.Context, name Subject, n *live, folds map[int32]*fold) error {
	shows, err := n.twins(ctx)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	c.verdict.answers(name, folds, shows)
	for _, deep := range []bool{false, true} {
		audit, err := n.audit(ctx, deep)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if !audit.GetBalanced() {
			c.verdict.add("%s: audit (deep: %v): not balanced: %s", name, deep, audit.GetDifference())
		}
		if got, want := len(audit.GetPartitions()), len(folds); got != want {
			c.verdict.add("%s: audit of %d partitions, want %d", name, got, want)
		}
	}
	m, err := n.metrics(ctx)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if d := m["doppel_replay_differences_total"]; d != 0 {
		c.verdict.add("%s: counts %v records whose replay differs", name, d)
	}
	return nil
}
