package fault

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/doppel-iot/doppel/sim/fleet"
	"github.com/doppel-iot/doppel/sim/oracle"
)

// court judges a rig that has come to rest.
type court struct {
	target   Target
	rig      *Rig
	judge    *oracle.Oracle
	verdict  *verdict
	outcome  *Outcome
	devices  []oracle.Device
	progress *fleet.Progress
	say      func(what string)
}

// How long the node may take to come to rest: to settle what it holds, and to catch up with rows.
const (
	restLimit = time.Minute
	rowsLimit = 2 * time.Minute
)

// sit gathers the evidence and judges it. Its error is evidence that could not be had.
func (c *court) sit(ctx context.Context) error {
	defer func() {
		for _, complaint := range c.rig.nodes[0].complaints() {
			c.verdict.add("%s", complaint)
		}
	}()
	if !c.rig.Ready(ctx) {
		return fmt.Errorf("the node does not get ready again: %s", c.rig.LogTail())
	}
	l, err := dialNode(c.rig.GRPC, c.rig.HTTP)
	if err != nil {
		return err
	}
	defer l.close()
	if err := c.rest(ctx, l); err != nil {
		return err
	}
	c.say("at rest")
	c.oracle(ctx)
	c.say("oracle heard")
	if err := c.state(ctx, l); err != nil {
		return err
	}
	m, err := l.metrics(ctx)
	if err != nil {
		return err
	}
	c.verdict.balance(m)
	// At rest the node must find the same by itself.
	audit, err := l.audit(ctx, true)
	if err != nil {
		return err
	}
	if !audit.GetBalanced() {
		c.verdict.add("audit: not balanced: %s", audit.GetDifference())
	}
	return nil
}

// rest waits until nothing is held or in flight and all rows are written. What does not come to rest is
// found by the judges.
func (c *court) rest(ctx context.Context, l *live) error {
	var err error
	var m map[string]float64
	await(ctx, restLimit, func() bool {
		m, err = l.metrics(ctx)
		return err == nil && m["doppel_samples_held"] == 0 && m["doppel_samples_in_flight"] == 0
	})
	if err == nil && c.rig.QuestDB != "" && !await(ctx, rowsLimit, func() bool {
		m, err = l.metrics(ctx)
		return err == nil && m["doppel_questdb_lag_records"] == 0
	}) {
		c.verdict.add("rows: %v records behind after %v", m["doppel_questdb_lag_records"], rowsLimit)
	}
	return err
}

// oracle compares twins, log and rows with what the devices sent.
func (c *court) oracle(ctx context.Context) {
	r := &oracle.Report{Sent: c.progress.Sent, Acked: c.progress.Acked}
	c.judge.Check(ctx, r, c.devices, c.progress)
	for _, f := range r.Findings {
		if !c.brokers(f) {
			c.verdict.add("%s", f)
		}
	}
	unacked := 0
	for _, d := range c.devices {
		unacked += len(d.Unacked)
	}
	if unacked > 0 || c.progress.Acked == 0 {
		c.verdict.add("%d samples acknowledged, %d never within %v", c.progress.Acked, unacked, settle)
	}
	c.outcome.Late, c.outcome.Lost = r.Late, r.Lost
	want := c.progress.Sent
	if c.target == Broker {
		want -= r.Lost
	}
	if r.QuestDBRows != nil {
		if c.outcome.Rows = *r.QuestDBRows; c.outcome.Rows != want {
			c.verdict.add("rows: %d in QuestDB, want %d", c.outcome.Rows, want)
		}
	}
}

// brokers says that a finding is what a killed broker answers for: it had acknowledged from memory. All
// else must hold even then.
func (c *court) brokers(finding string) bool {
	return c.target == Broker && (strings.HasPrefix(finding, string(oracle.Lost)+":") || strings.HasPrefix(finding, string(oracle.Mismatch)+":"))
}

// state compares the node with a fold of the log, at the offsets at which the node says it stands.
func (c *court) state(ctx context.Context, l *live) error {
	audit, err := l.audit(ctx, false)
	if err != nil {
		return err
	}
	ends := make(map[int32]int64)
	for _, p := range audit.GetPartitions() {
		ends[p.GetId()] = int64(p.GetNextOffset())
	}
	log, err := readTopic(ctx, c.rig.Kafka, "doppel.telemetry")
	if err != nil {
		return err
	}
	folds, err := foldLog(log, ends)
	if err != nil {
		return err
	}
	for p, f := range folds {
		c.outcome.Records += len(log[p])
		c.outcome.Void += f.void
		c.outcome.Claims += f.claims
		c.outcome.Transitions += len(f.transitions)
	}
	c.verdict.replay(folds)
	before := len(c.verdict.findings)
	c.verdict.hashes(folds, audit.GetPartitions())
	if len(c.verdict.findings) > before {
		if err := c.name(ctx, l); err != nil {
			return err
		}
	}
	return c.alerts(ctx, folds)
}

// name says which twins differ, where the log stood still meanwhile.
func (c *court) name(ctx context.Context, l *live) error {
	shows, err := l.twins(ctx)
	if err != nil {
		return err
	}
	log, err := readTopic(ctx, c.rig.Kafka, "doppel.telemetry")
	if err != nil {
		return err
	}
	folds, err := foldLog(log, nil)
	if err != nil {
		return err
	}
	c.verdict.twins(folds, shows)
	return nil
}

// alertsLimit is how long the last transitions may take to doppel.alerts.
const alertsLimit = 10 * time.Second

func (c *court) alerts(ctx context.Context, folds map[int32]*fold) error {
	var found published
	var err error
	await(ctx, alertsLimit, func() bool {
		var all records
		if all, err = readTopic(ctx, c.rig.Kafka, "doppel.alerts"); err == nil {
			found, err = readAlerts(all)
		}
		return err != nil || found.complete(folds)
	})
	if err != nil {
		return fmt.Errorf("alerts: %w", err)
	}
	c.verdict.alerts(folds, found)
	return nil
}
