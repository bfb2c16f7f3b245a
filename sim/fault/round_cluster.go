package fault

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/doppel-iot/doppel/sim/oracle"
)

// ClusterLoad is a little more than 3,000 messages a second from 2,000 devices.
func ClusterLoad() Load {
	return Load{Devices: 2000, Rate: 3050, Connections: 20, Dup: 0.03, Reorder: 0.03, Anomalies: 0.4}
}

// subscribers is how many watch alerts during a round.
const subscribers = 4

// runCluster is Run for a cluster.
func (r *Round) runCluster(ctx context.Context) (*Outcome, error) {
	start := time.Now()
	rig, err := NewCluster(ctx, &ClusterConfig{Root: r.Root, Dir: r.Dir, Members: r.members(), Seed: r.Seed, Proxied: r.Proxied, Settings: r.Settings})
	if err != nil {
		return nil, err
	}
	defer rig.Close()
	say := func(what string) {
		fmt.Fprintf(r.Out, "%s %v after the start\n", what, time.Since(start).Round(time.Millisecond))
	}
	say("serving, in " + rig.Network + ",")
	if err := stampByLog(ctx, rig.Kafka, "doppel.telemetry", "doppel.ingest"); err != nil {
		return nil, err
	}
	boot := uint64(start.UnixMilli())
	judge, err := oracle.Open(ctx, oracle.Config{
		GRPC: rig.GRPC, HTTP: rig.HTTP, Kafka: []string{rig.Kafka}, Boot: boot,
		IDs: r.Load.ids(), Interval: r.Load.interval(), Verify: true, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return nil, fmt.Errorf("oracle: %w", err)
	}
	defer judge.Close()
	nodes, hangUp, err := rig.call()
	if err != nil {
		return nil, err
	}
	defer hangUp()
	watching := newAudience(ctx, nodes, subscribers)
	defer watching.close()
	watch := &stopwatch{next: judge.Observer(), ids: r.Load.ids(), sent: make([][]int64, r.Load.Devices)}
	load, err := r.Load.start(ctx, r.Seed, boot, rig.Devices, watch)
	if err != nil {
		return nil, err
	}
	lights := startBlinkers(ctx, rig.Devices)
	defer lights.end()
	sleep(ctx, warmUp)
	v := &verdict{}
	var watched chan error
	faults := r.faults()
	if r.Target == Blackout && len(faults) > 0 {
		watched = make(chan error, 1)
		w := &witness{nodes: nodes, ids: r.Load.ids()[:10]}
		go func() {
			sleep(ctx, faults[0].At)
			watched <- w.look(ctx, faults[0].For)
		}()
	}
	if err := rig.Inject(ctx, faults, r.Out); err != nil {
		v.add("%v", err)
	}
	if watched != nil {
		if err := <-watched; err != nil {
			v.add("meanwhile: %v", err)
		}
	}
	if r.Then != nil {
		r.Then(ctx, rig, v)
	}
	sleep(ctx, time.Second) // it works on behind the last fault
	lights.end()
	devices, progress := load.end()
	say("all acknowledged")
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	o := &Outcome{
		Faults: len(rig.happened), Sent: progress.Sent, Acked: progress.Acked, Messages: progress.Messages, Duplicates: progress.Duplicates,
		Swapped: progress.Swapped, Resent: progress.Resent, Rate: float64(progress.Messages) / load.took.Seconds(),
	}
	c := &clusterCourt{
		rig: rig, judge: judge, watch: watch, audience: watching, nodes: nodes, verdict: v, outcome: o,
		devices: devices, boot: boot, progress: &progress, say: say,
	}
	if err := c.sit(ctx); err != nil {
		v.add("%v", err)
	}
	for _, n := range rig.nodes {
		o.Starts += n.failedStarts()
	}
	o.Findings, o.Took = v.findings, time.Since(start)
	return o, nil
}

// members are the commands of the nodes.
func (r *Round) members() []string {
	if r.Members != nil {
		return r.Members
	}
	return slices.Repeat([]string{r.Binary}, len(Members()))
}

// faults are those of the round.
func (r *Round) faults() []Fault {
	if r.Schedule != nil {
		return r.Schedule
	}
	return r.Target.Pace().schedule(r.Seed, r.Target.Menu(), r.Faults)
}

// call opens a connection to each node.
func (r *Rig) call() (nodes []*live, hangUp func(), err error) {
	hangUp = func() {
		for _, n := range nodes {
			n.close()
		}
	}
	for _, n := range r.nodes {
		l, err := dialNode(n.grpc, n.http)
		if err != nil {
			hangUp()
			return nil, nil, err
		}
		nodes = append(nodes, l)
	}
	return nodes, hangUp, nil
}

// stampByLog lets Kafka stamp the records of topics: with the time at which they became durable.
func stampByLog(ctx context.Context, kafka string, topics ...string) error {
	cl, err := kgo.NewClient(kgo.SeedBrokers(kafka))
	if err != nil {
		return fmt.Errorf("stamp by log: %w", err)
	}
	defer cl.Close()
	by := "LogAppendTime"
	all, err := kadm.NewClient(cl).AlterTopicConfigs(ctx, []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "message.timestamp.type", Value: &by}}, topics...)
	for _, a := range all {
		if err == nil {
			err = a.Err
		}
	}
	if err != nil {
		return fmt.Errorf("stamp by log: %w", err)
	}
	return nil
}
