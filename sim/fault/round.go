package fault

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/doppel-iot/doppel/sim/oracle"
)

// Round is one life of a system under many faults.
type Round struct {
	Target Target
	Seed   uint64
	Faults int
	Load   Load
	Binary string // the doppel command
	// Of clusters: the nodes' commands, if they are not three of Binary; further flags; faults other than
	// drawn ones; what happens behind them, still under load; and that there are to be proxies even where
	// namespaces can be had.
	Members  []string
	Settings []string
	Schedule []Fault
	Then     func(ctx context.Context, rig *Rig, v *verdict)
	Proxied  bool

	Root string // of the repository
	Dir  string // empty, for everything the round writes
	Out  io.Writer
}

// Outcome is what a round came to.
type Outcome struct {
	Findings    []string // empty: nothing is wrong
	Faults      int
	Sent, Acked uint64
	Messages    uint64  // acknowledged, repeated ones included
	Rate        float64 // messages acknowledged a second while samples were sent
	Duplicates  uint64  // messages repeated on purpose
	Swapped     uint64
	Resent      uint64
	Late        uint64
	Lost        uint64 // acknowledged and nowhere; of Broker's, by the broker
	Rows        uint64
	Records     int // in doppel.telemetry
	Void        int
	Claims      int
	Transitions int
	Hits        int // produce requests that went wrong
	Starts      int // of the node that failed: what it needs was away
	Raw         int // records in doppel.ingest, of a cluster
	Resumed     int // times that subscribers went on at another node
	Waits       []waits
	Took        time.Duration
}

// String is the outcome as one line.
func (o *Outcome) String() string {
	return fmt.Sprintf("%d faults, %d samples, %.0f messages/s, %d repeated, %d swapped, %d resent, %d late, %d lost, %d records (%d void, %d claims), %d alert transitions, %d rows, %d produce requests hit, %d failed starts, %d raw, %d resumed, %v",
		o.Faults, o.Sent, o.Rate, o.Duplicates, o.Swapped, o.Resent, o.Late, o.Lost, o.Records, o.Void, o.Claims, o.Transitions, o.Rows, o.Hits, o.Starts, o.Raw, o.Resumed, o.Took.Round(time.Second))
}

// warmUp is how long the load runs before the schedule begins, so that baselines and alerts exist.
const warmUp = 3 * time.Second

// Run carries the round out. Its error is that it could not be; what is wrong with the product is in the
// outcome.
func (r *Round) Run(ctx context.Context) (*Outcome, error) {
	if r.Target.Clustered() {
		return r.runCluster(ctx)
	}
	start := time.Now()
	rig, err := NewRig(ctx, r.Target, r.Root, r.Dir, r.Binary)
	if err != nil {
		return nil, err
	}
	defer rig.Close()
	say := func(what string) {
		fmt.Fprintf(r.Out, "%s %v after the start\n", what, time.Since(start).Round(time.Millisecond))
	}
	say("serving")
	boot := uint64(start.UnixMilli())
	judge, err := oracle.Open(ctx, oracle.Config{
		GRPC: rig.GRPC, HTTP: rig.HTTP, Kafka: []string{rig.Kafka}, QuestDB: rig.QuestDB, Boot: boot,
		IDs: r.Load.ids(), Interval: r.Load.interval(), Verify: true, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return nil, fmt.Errorf("oracle: %w", err)
	}
	defer judge.Close()
	load, err := r.Load.start(ctx, r.Seed, boot, rig.Devices, judge.Observer())
	if err != nil {
		return nil, err
	}
	sleep(ctx, warmUp)
	v := &verdict{}
	if err := rig.Inject(ctx, r.faults(), r.Out); err != nil {
		v.add("%v", err)
	}
	sleep(ctx, time.Second) // it works on behind the last fault
	devices, progress := load.end()
	say("all acknowledged")
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	o := &Outcome{
		Faults: r.Faults, Sent: progress.Sent, Acked: progress.Acked, Messages: progress.Messages, Duplicates: progress.Duplicates,
		Swapped: progress.Swapped, Resent: progress.Resent, Rate: float64(progress.Messages) / load.took.Seconds(),
	}
	if l := rig.links[KafkaLink]; l != nil {
		o.Hits = l.Hits()
	}
	c := &court{target: r.Target, rig: rig, judge: judge, verdict: v, outcome: o, devices: devices, progress: &progress, say: say}
	if err := c.sit(ctx); err != nil {
		v.add("%v", err)
	}
	o.Starts = rig.nodes[0].failedStarts()
	o.Findings, o.Took = v.findings, time.Since(start)
	return o, nil
}
